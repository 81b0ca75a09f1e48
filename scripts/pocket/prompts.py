"""What people may write for each condition, and the tokenizer trained on it. Texts only; no pictures here."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import torch
import yaml
from tokenizers import AddedToken, Tokenizer, models, trainers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from scripts.pocket.conditions import DEGREES, KEYWORDS, PHRASES, VARIANTS

DEFAULT_SEVERITY = 65  # what a text without a severity means
SEVERITIES = tuple(range(0, 101, 5))
MAX_TOKENS = 77


def _choices(text: str) -> list[str]:
    return text.split("|")


FRAMES = _choices(
    "{}|{}|{}|make it {}|make it {}|turn it into {}|change the weather to {}|change it to {}|{}, please|with {}|in {}|"
    "a photo of {o}, {}|a photo of {o} in {}|a photo of {o} on {}|a photo with {}|{o}, {}|{o} in {}|"
    "a street with {o}, {}|add {}|it is {}|now it is {}|show {o} in {}|the scene in {}|a picture of {o}, {}|{} over {o}"
)

TAILS = _choices(
    "||||||, photo|, realistic|, dashcam photo|, high quality|, a real photograph|, street scene|, detailed|, raw photo|"
    ", natural light|, wide angle|, surveillance camera|, documentary style|, sharp"
)

OBJECTS = _choices(
    "car|cars|person|people|truck|bus|bicycle|bike|motorcycle|motor|rider|traffic light|traffic sign|train|dog|cat|horse|"
    "ship|boat|bird|cow|sheep|bench|tree|house|building|van|taxi|pedestrian|scooter|tractor|plane|drone|animal|deer|sign|"
    "cone|barrier|road|street|sky|bridge|tower|wall|helmet|bottle|chair|table|bag|child|woman|man|worker|crane|container|"
    "tram|wagon|lorry|vehicle|ambulance|fire engine|police car|wheel|pole|lamp|crossing|face|plate|kangaroo|elephant|"
    "raccoon|fish|flower|fruit|apple|plant|machine|robot|forklift|pallet|box|door|window|roof|solar panel|cell|ball|"
    "player|goal"
)

NOTHING = _choices(
    "add a {o}|a {o}|make it purple|replace the {o}|remove the {o}|{o}|{o} and {o}|a photo of {o}|more {o}||||"
)


def preset_texts(path: Path | None) -> dict[str, list[str]]:
    """Both texts of every preset of a conditions file, by the condition that the renderer paints for it."""
    texts: dict[str, list[str]] = {name: [] for name in PHRASES}
    if path is None or not path.exists():
        return texts
    for name, preset in yaml.safe_load(path.read_text(encoding="utf-8")).items():
        kind = name.removeprefix("heavy-").removeprefix("light-")
        if kind in texts and isinstance(preset, dict):
            found = [preset.get(key) for key in ("prompt", "instruction")]
            texts[kind] += [text.replace("{objects}", "{o}") for text in found if text]
    return texts


def vocabulary(presets: dict[str, list[str]]) -> dict[str, list[str]]:
    """Condition -> the words that mean it; "" -> every other word that training reads, except those of NOTHING, which
    ask for what the model cannot do."""
    texts = [*FRAMES, *TAILS, *OBJECTS, *DEGREES, *VARIANTS.values(), "severity"]
    texts += [text for kind in PHRASES for text in (PHRASES[kind], *presets[kind])]
    known = set(re.findall(r"[^\W\d_]+", " ".join(texts).lower().replace("{o}", "")))
    meant = {kind: words.split() for kind, words in KEYWORDS.items()}
    return {**meant, "": sorted(known - {word for words in meant.values() for word in words})}


def draw_objects(rng: np.random.Generator) -> str:
    """'cars and a person', 'a bus', 'truck, bicycle': one to four nouns as a run would list them."""
    nouns = [str(n) for n in rng.choice(OBJECTS, int(rng.integers(1, 5)), replace=False)]
    nouns = [("a " + n) if rng.random() < 0.4 and not n.endswith("s") else n for n in nouns]
    return ", ".join(nouns[:-1]) + " and " + nouns[-1] if len(nouns) > 1 and rng.random() < 0.8 else ", ".join(nouns)


def draw_prompt(condition: str, severity: int, presets: dict[str, list[str]], rng: np.random.Generator) -> str:
    """A text for the condition; the severity is given as ', severity 65' or by a word of DEGREES, and at the default
    value it may be left out."""
    words = [word for word, meant in DEGREES.items() if severity in meant and condition != "same"]
    if words and condition in PHRASES and rng.random() < 0.25:
        degree, phrases = str(rng.choice(_choices(words[0]))), _choices(PHRASES[condition])
        kind = phrases[0] if rng.random() < 0.7 else str(rng.choice(phrases))
        said = f"{degree} {kind}" if rng.random() < 0.7 else f"{kind}, {degree}"
        return re.sub(r"\{o\}", lambda _: draw_objects(rng), str(rng.choice(FRAMES)).replace("{}", said))
    if condition in VARIANTS:
        text = str(rng.choice(FRAMES)).replace("{}", str(rng.choice(_choices(VARIANTS[condition]))))
    elif condition == "same" and rng.random() < 0.6:
        text = str(rng.choice(NOTHING))
    elif presets[condition] and rng.random() < 0.5:
        text = str(rng.choice(presets[condition]))
    else:
        frame = str(rng.choice(FRAMES))
        text = frame.replace("{}", str(rng.choice(_choices(PHRASES[condition]))))
    text = re.sub(r"\{o\}", lambda _: draw_objects(rng), text) + str(rng.choice(TAILS))
    if rng.random() < 0.3:
        text = text.title() if rng.random() < 0.2 else text[:1].upper() + text[1:]
    told = any(re.search(rf"\b({word})\b", text) for word in DEGREES)
    silent = severity == DEFAULT_SEVERITY and not told and rng.random() < 0.5
    return text if silent else f"{text}, severity {severity}"


def train_tokenizer(presets: dict[str, list[str]], seed: int) -> CLIPTokenizer:
    """Byte-level BPE on 20,000 drawn texts; 0, 5, … 100 are whole tokens (CLIP would split them into digits)."""
    rng = np.random.default_rng(seed)
    texts = [draw_prompt(str(rng.choice(list(PHRASES))), 50, presets, rng) for _ in range(20_000)]
    plain = CLIPTokenizer().backend_tokenizer
    raw = Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token="<|endoftext|>"))
    raw.normalizer, raw.pre_tokenizer = plain.normalizer, plain.pre_tokenizer
    # Every byte alone and as a word's end, so that no word is unknown.
    letters = sorted(chr(c) for c in _byte_letters())
    trainer = trainers.BpeTrainer(
        vocab_size=1400,
        min_frequency=20,
        special_tokens=["<|startoftext|>", "<|endoftext|>", *(c + "</w>" for c in letters)],
        initial_alphabet=letters,
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    raw.train_from_iterator(texts, trainer)
    model = json.loads(raw.to_str())["model"]
    merges = [tuple(m.split(" ")) if isinstance(m, str) else tuple(m) for m in model["merges"]]
    tokenizer = CLIPTokenizer(vocab=model["vocab"], merges=merges, model_max_length=MAX_TOKENS)
    tokenizer.add_tokens([AddedToken(str(n), single_word=True, normalized=True) for n in SEVERITIES])
    return tokenizer


def _byte_letters() -> list[int]:
    """Code points by which byte-level BPE writes the 256 bytes (printable ones stand for themselves)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return printable + [256 + i for i in range(256 - len(printable))]


def build_text_encoder(tokenizer: CLIPTokenizer, width: int) -> CLIPTextModel:
    """Two layers; severity tokens start on a smooth curve, so that what is learned at 60 and 70 serves at 65."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=MAX_TOKENS,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        hidden_act="gelu",
    )
    encoder = CLIPTextModel(config)
    table = encoder.get_input_embeddings().weight
    with torch.no_grad():
        axes = torch.randn(5, width) * 0.03
        for n in SEVERITIES:
            s = n / 100
            curve = torch.tensor([1.0, 3 * s - 1.5, np.cos(np.pi * s), np.sin(np.pi * s), np.cos(2 * np.pi * s)])
            table[tokenizer.convert_tokens_to_ids(str(n))] = curve.float() @ axes
    return encoder
