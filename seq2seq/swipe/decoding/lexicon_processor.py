def beam_generate(*a, **k): raise NotImplementedError
