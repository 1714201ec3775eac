"""Odd values."""

from __future__ import annotations

import random

NUMBERS = (
    *("0", "1", "2", "-1", "-0", "00", "1.5", "-1e-3", "1e-400", "1e400", "-1e400", "nan", "inf", "-inf", "0x10"),
    *("1e9", "1000000000", "2147483648", "9223372036854775808", "9" * 20, "-" + "9" * 25, "9" * 400, "9" * 5000),
    *("", " ", " 1 ", "+1", "1,2", "1;2", "one", "None", "true", "٣", "1e", "--1", "1_0", "0.1%", "200%", "-5%"),
)
RANGES = (
    *(
        "0..1",
        "1..1000000000",
        "0..1000000000",
        f"0..{'9' * 30}",
        "3..1",
        "..",
        "1..",
        "..1",
        "-1..1",
        "1..2..3",
        "1...2",
    ),
    *("0,0", "1,x", ",", "0.5..1", "1..1%", "0%"),
)
TEXTS = (
    *(
        "",
        " ",
        "\t",
        "\n",
        "a\nb",
        "a\rspurmem: b",
        "\udcff",
        "\ud800x",
        "é",
        "e\u0301",
        "\u202eabc",
        "\u2028",
        "\x1b[31mred\x1b[0m",
    ),
    *(
        "x" * 255,
        "x" * 256,
        "y" * 5000,
        "{label}",
        "{label:>1000000000}",
        "{label.__class__}",
        "{0}",
        "{",
        "%s%n",
        "%(a)s",
    ),
    *(
        "*",
        "**",
        "[",
        "(",
        "\\",
        "../x",
        "a/b",
        "/",
        "~",
        "~nobody",
        "$(id)",
        "`id`",
        "; id",
        "-",
        "--",
        "-x",
        "None",
        "NA",
    ),
    *(
        "os:system",
        "os:",
        ":system",
        ":",
        "::",
        "a:b:c",
        "os.path:join",
        "nothing:at_all",
        "builtins:eval",
        "builtins:print",
    ),
    *(
        "tiny_networks:small_convnet",
        "tiny_networks:nothing",
        "tiny_criteria:nothing",
        "sys:exit",
        "os:abort",
        "time:sleep",
    ),
)
NAMES = (
    *(
        "zero",
        "mean",
        "random_init:std=nan",
        "random_init:std=1e400",
        "random_noise:std=-1",
        "random_noise:std=0.5",
        "zero:std=1",
    ),
    *(
        "rewind:epochs=1",
        "rewind:epochs=99999999999999999999",
        "rewind:epochs=-1",
        "rewind",
        "random_init",
        "random_init:std=",
    ),
    *(
        "erm",
        "dfr",
        "dfr:strengths=-1",
        "dfr:strengths=1e400",
        "dfr:repeats=0",
        "jtt:upweight=1e9",
        "group-dro:step=nan",
    ),
    *(
        "group-dro:step=1e400",
        "reweighting:by=nothing",
        "pruned-contrast:fraction=2",
        "pruned-contrast:mask=x",
        "erm:x=1",
    ),
    *(
        "best",
        "last",
        "first",
        "layer:0",
        "conv1:0",
        "conv1:1,conv1:1",
        f"conv1:{'9' * 50}",
        "conv1:-1",
        "fc:0",
        "conv1:",
        ":0",
        "conv1:0:0",
    ),
    *(
        "weight_norm",
        "gradient",
        "taylor",
        "ablation",
        "random",
        "magnitude",
        "weight_norm,weight_norm",
        "none",
        "timm",
    ),
    *(
        "resnet18",
        "resnet99",
        "deit_tiny",
        "cuda",
        "mps",
        "cpu",
        "cuda:99",
        "meta",
        "val",
        "train,val",
        "conv",
        "class 0, color 1",
    ),
)
FILES = (
    *(
        "data",
        "run",
        "other",
        "pipe",
        "zero",
        "loop",
        "nothing",
        "empty",
        "missing",
        "data/metadata.csv",
        "weights.pth",
    ),
    *(
        "run/run.json",
        "run/studies",
        "",
        ".",
        "x" * 256,
        "y" * 5000,
        "a\nb",
        "\udcff",
        "~nobody/x",
        "data/metadata.csv/x",
    ),
    *("missing/deep/down", "run@0", "run@999", "run@best", "run@", "run@x"),
)
ALL = (*NUMBERS, *RANGES, *TEXTS, *NAMES)


def integer(rng: random.Random) -> int:
    """A whole number, often an extreme one."""
    return rng.choice((0, 1, -1, 2, 7, 255, 2**31, -(2**31), 2**63, -(2**63) - 1, 10**20, 10**400))


def number(rng: random.Random) -> float:
    """A number, often an extreme one."""
    return rng.choice(
        (0.0, -0.0, 0.5, 1.0, -1.0, 255.0, 1e20, 1e308, 5e-324, float("nan"), float("inf"), -float("inf"))
    )


def text(rng: random.Random) -> str:
    """A text."""
    return rng.choice(ALL)


def damaged(rng: random.Random, content: bytes) -> bytes:
    """Bytes that are cut off, changed, repeated, exchanged or gone."""
    if not content:
        return b"\0"
    place = rng.randrange(len(content))
    match rng.randrange(9):
        case 0:
            return b""
        case 1:
            return content[: len(content) // 2]
        case 2:
            return content[:place]
        case 3:
            return content[:place] + bytes([content[place] ^ (1 << rng.randrange(8))]) + content[place + 1 :]
        case 4:
            changed = bytearray(content)
            for _ in range(20):
                changed[rng.randrange(len(changed))] = rng.randrange(256)
            return bytes(changed)
        case 5:
            return content + content
        case 6:
            return content[place:]
        case 7:
            return rng.randbytes(rng.choice((1, 100, 10_000)))
        case _:
            return content[:place] + rng.randbytes(8) + content[place:]
