"""The figures that the paper prints, to stand beside those of a run (arXiv:2504.16968).

Bits are per weight at step 2^-8 with one codebook: fixed length (FL), exp-Golomb of order 0 (EG), Huffman (HM).
Accuracies are in percent.
"""

from __future__ import annotations

MODEL = "BERT"
"""The paper's model of the tables that have but one."""

EG_ORDERS = {
    "BERT": (2.64, 3.16, 3.74, 4.42, 5.17),
    "GPT-2": (2.46, 3.05, 3.70, 4.40, 5.19),
    "Llama-3": (1.72, 2.47, 3.26, 4.12, 5.03),
    "Gemma-2": (1.16, 2.10, 3.06, 4.02, 5.01),
}
"""Table 3: exp-Golomb bits at orders 0 to 4 of models trained by BackSlash."""

MODELS = {
    "BERT": ((10, 7.31, 5.47, 93.63), (10, 2.64, 2.42, 92.59)),
    "GPT-2": ((11, 7.78, 5.73, 85.92), (11, 2.46, 2.25, 88.73)),
    "Llama-3": ((10, 5.49, 4.43, 86.09), (10, 1.72, 1.66, 86.93)),
    "Gemma-2": ((11, 4.45, 3.95, 86.95), (11, 1.16, 1.15, 85.86)),
}
"""Table 4, sentiment: (FL, EG, HM, accuracy) of normal training and of BackSlash."""

SHAPES = {"BERT": ("1.36", "0.26"), "GPT-2": ("1.54", "-"), "Llama-3": ("1.26", "-")}
"""Shape of the weights before and after BackSlash, where the text gives it."""

SETS = {
    "IMDB": ((7.31, 5.47, 93.63), (2.64, 2.42, 92.59)),
    "Enron-Spam": ((7.31, 5.47, 99.65), (2.42, 2.19, 98.96)),
    "20 Newsgroups": ((7.31, 5.47, 70.78), (3.61, 3.18, 69.36)),
    "SQuAD": ((5.95, 4.70, 99.97), (2.90, 2.81, 99.97)),
    "WMT-19": ((6.10, 4.70, 99.96), (3.10, 3.00, 99.95)),
}
"""Table 5: (EG, HM, accuracy) of both. The last two are of DeepSeek 7B, the accuracy that of the next token."""

REGULARISERS = {
    "DGGR": (0.13, 91.18, 1.37, 1.32),
    "L0.5": (0.22, 91.88, 2.90, 2.01),
    "L1": (0.15, 90.65, 1.52, 1.46),
    "L2": (0.10, 88.29, 1.16, 1.14),
}
"""Table 6: (shape, accuracy, EG, HM)."""

STRENGTHS = {
    "0": (7.31, 5.47, 93.63),
    "1": (6.66, 5.25, 93.85),
    "10": (5.78, 4.81, 93.93),
    "100": (4.03, 3.59, 93.68),
    "1000": (2.64, 2.42, 92.59),
}
"""BERT on IMDB by lambda: (EG, HM, accuracy)."""

PRUNING = (
    "Figure 8: normal training degrades at 50% and is dead at 60%; BackSlash holds to 80% (BERT) and 90% (others)."
)
QUANTISATION = "The paper: step 2^-4 destroys both models; 2^-8 and finer are flat; nothing between was tried."
