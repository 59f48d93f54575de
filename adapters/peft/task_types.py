"""PEFT's task types, and the Auto class of transformers that loads the base model of each."""

from peft import TaskType

WITH_HEAD = {
    TaskType.SEQ_CLS: "AutoModelForSequenceClassification",
    TaskType.TOKEN_CLS: "AutoModelForTokenClassification",
    TaskType.QUESTION_ANS: "AutoModelForQuestionAnswering",
}
"""The Auto class of each task type for which PEFT always trains and saves the head."""
AUTO_OF_TASK = {
    TaskType.SEQ_2_SEQ_LM: "AutoModelForSeq2SeqLM",
    TaskType.CAUSAL_LM: "AutoModelForCausalLM",
    TaskType.FEATURE_EXTRACTION: "AutoModel",
    **WITH_HEAD,
}
"""The Auto class of transformers of each task type."""
