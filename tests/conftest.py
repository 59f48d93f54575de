"""What all tests share: no test looks at a clock, so examples of hypothesis may take as long as they do."""

from hypothesis import settings

settings.register_profile("without a clock", deadline=None)
settings.load_profile("without a clock")
