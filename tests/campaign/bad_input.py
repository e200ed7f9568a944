"""Input that nobody should give: each through the real command line must be one sentence and exit code 1 or 2."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from process import Done, Project

SMOKE = ("-P", "smoke")

# What is wrong, in words, and the command; {folder} is a folder with the files that ``prepare`` makes.
COMMANDS = [
    ("unknown profile", "book -P laptp"),
    ("unknown launcher", "book -P smoke --launcher cloud"),
    ("number for a list", "chapter rq2 -P smoke -p seeds 0"),
    ("table as key", "chapter rq2 -P smoke -p k {[1]:2}"),
    ("deep brackets", "chapter rq2 -P smoke -p k " + "[" * 5000),
    ("value twice", "chapter rq2 -P smoke -p k [5,5]"),
    ("no such text set", "chapter rq2 -P smoke -p texts ['dosc']"),
    ("parameter without a value", "chapter rq2 -P smoke -p"),
    ("profile None", "chapter rq2 -p profile None"),
    ("negative n_texts", "chapter rq2 -P smoke -p n_texts -5"),
    ("chapter that there is not", "chapter rq7"),
    ("negative seed", "train base -P smoke --seed -1"),
    ("seed beyond 64 bits", "train base -P smoke --seed 18446744073709551616"),
    ("digits that are not ASCII, seed", "evaluate base:² -P smoke"),
    ("digits that are not ASCII, processes", "train base -P smoke --parallel ddp:²"),
    ("unknown role", "train ../x -P smoke"),
    ("unknown family", "train base -f ../x -P smoke"),
    ("store that is a file", "train base -P smoke", "REALIGN_STORE={folder}/file"),
    ("store below a file", "train base -P smoke", "REALIGN_STORE={folder}/file/store"),
    ("store that is a link in a circle", "train base -P smoke", "REALIGN_STORE={folder}/loop"),
    ("store of an unknown user", "train base -P smoke", "REALIGN_STORE=~nobody-here/store"),
    (
        "store in the published results",
        "plan -P smoke",
        "REALIGN_STORE={folder}/../data/results",
        "REALIGN_FRESH=0",
    ),
    ("chapter with a store that is a file", "chapter rq1 -P smoke", "REALIGN_STORE={folder}/file"),
    ("project that is not there", "plan -P smoke", "REALIGN_ROOT={folder}/none"),
    ("project of an unknown user", "plan -P smoke", "REALIGN_ROOT=~nobody-here"),
    ("tune onto a file", "tune sft -P smoke -o {folder}/file"),
    ("tune below a file", "tune sft -P smoke -o {folder}/file/x"),
    ("tune onto a full folder", "tune sft -P smoke -o {folder}"),
    ("export below a file", "export base:0 -P smoke -o {folder}/file/x"),
    ("export of a backbone", "export base -P smoke -o {folder}/new"),
    ("notebooks onto a file", "notebooks --folder {folder}/file"),
    ("notebooks below a file", "notebooks --folder {folder}/file/x"),
    ("mine below a file", "mine messages -o {folder}/file/x.jsonl -m {folder}/nothing"),
    ("mine from a broken file", "mine file:{folder}/broken.jsonl -o {folder}/x -m {folder}/nothing"),
    ("mine from a folder", "mine file:{folder} -o {folder}/x -m {folder}/nothing"),
    ("mine with a surrogate", "mine file:{folder}/surrogate.jsonl -o {folder}/x -m {folder}/nothing"),
    ("sweep that is not TOML", "sweep {folder}/broken.jsonl -P smoke"),
    ("sweep that is not there", "sweep {folder}/none.toml -P smoke"),
    ("sweep that is a folder", "sweep {folder} -P smoke"),
    ("profile that is not TOML", "plan -P {folder}/broken.toml"),
    ("profile with inf", "plan -P {folder}/inf.toml"),
    ("profile nested deeply", "plan -P {folder}/deep.toml"),
    ("profile without suites", "plan -P {folder}/empty.toml"),
    ("profile with the name of a path", "plan -P {folder}/name.toml"),
    ("profile that is a folder", "plan -P {folder}/folder.toml"),
    ("profile that is a link in a circle", "plan -P {folder}/loop.toml"),
    ("profile in another encoding", "plan -P {folder}/latin.toml"),
    ("profile that extends itself", "plan -P {folder}/circle.toml"),
    ("model folder that is empty", "compare base path:{folder}/folder.toml -P smoke"),
    ("model that is a file", "compare base path:{folder}/file -P smoke"),
    ("model folder with a config of no sense", "compare base path:{folder}/model -P smoke"),
    ("evaluate a folder of no sense", "evaluate path:{folder}/model -P smoke -s smoke-code"),
    ("suite without tasks", "evaluate base -P smoke -s tasks:"),
    ("suite of a path", "evaluate base -P smoke -s tasks:../../x"),
    ("kept step that there is not", "compare base base:0@99 -P smoke"),
    ("number of 40 digits", "compare base base:" + "9" * 40 + " -P smoke"),
    ("nothing published", "verify -P smoke"),
    ("tolerance nan", "verify -P smoke --tolerance nan"),
    ("limit -1", "verify -P smoke --limit -1"),
    ("unknown stage", "verify -P smoke --stage polcy"),
    ("publish what is not computed", "publish -P smoke"),
    ("command that there is not", "bok"),
    ("option that there is not", "plan --prof smoke"),
]
# Families of a registry of their own, each looked up by `train base -f mine`.
REGISTRIES = {
    "scalar family": "mine = 3",
    "scalar roles": "[mine]\nroles = 3",
    "role that leads out": '[mine.roles]\nbase.source = "random:0"\n"../x".source = "random:1"',
    "option of pip as a wheel": '[mine.roles]\nbase.source = "wheel:-r==1/x.gguf"',
    "unknown user": '[mine.roles]\nbase.source = "path:~nobody-here/x"',
    "null byte": '[mine.roles]\nbase.source = "path:a\\u0000b"',
    "adapter without a base": '[mine.roles]\nbase.source = "adapter:x"',
    "not TOML": "[mine",
}


def prepare(folder: Path) -> None:
    """Write the files that the commands name."""
    folder.mkdir()
    (folder / "file").write_text("not a folder")
    (folder / "folder.toml").mkdir()
    for name in ("loop", "loop.toml"):
        (folder / name).symlink_to(folder / name)
    for name, text in {
        "broken.jsonl": '{"query": 3}\n{',
        "surrogate.jsonl": '{"query": "a\\ud800", "positive": "b"}\n',
        "broken.toml": "name = ",
        "inf.toml": 'extends = "smoke"\nmargin = inf\n',
        "deep.toml": 'extends = "smoke"\nseeds = ' + "[" * 50_000,
        "empty.toml": 'extends = "smoke"\nsuites = []\n',
        "name.toml": 'extends = "smoke"\nname = "../x"\n',
        "circle.toml": 'extends = "circle.toml"\n',
    }.items():
        (folder / name).write_text(text)
    (folder / "latin.toml").write_bytes('extends = "smoke"\nabout = "é"\n'.encode("latin-1"))
    (folder / "model").mkdir()
    (folder / "model" / "config.json").write_text('{"model_type": "llama", "hidden_size": "wide"}')


def cases(project: Project) -> list[tuple[str, Callable[[], Done]]]:
    """Return what is wrong, in words, with the call that runs it."""
    folder = project.folder / "input"
    prepare(folder)

    def command(line: str, *variables: str) -> Callable[[], Done]:
        words = [word.replace("{folder}", str(folder)) for word in line.split(" ")]
        pairs = [each.replace("{folder}", str(folder)).partition("=") for each in variables]
        return lambda: project.run(*words, seconds=240, **{name: value for name, _, value in pairs})

    def registry(name: str, text: str) -> Callable[[], Done]:
        own = project.folder / "registries" / name.replace(" ", "-")
        (own / "data").mkdir(parents=True)
        for file in (project.folder / "data").iterdir():
            if file.name != "families.toml":
                (own / "data" / file.name).symlink_to(file.resolve())
        (own / "data" / "families.toml").write_text(text)
        return lambda: project.run("train", "base", "-f", "mine", *SMOKE, seconds=240, REALIGN_ROOT=str(own))

    made = [(name, command(*rest)) for name, *rest in COMMANDS]
    return made + [(f"registry: {name}", registry(name, text)) for name, text in REGISTRIES.items()]


def problem(done: Done) -> str:
    """What is wrong with the way in which a command refused its input; empty if nothing."""
    if done.code not in (1, 2):
        return f"exit code {done.code}: {done.err[-300:]}"
    if "Traceback" in done.err:
        return f"traceback: {done.err[-300:]}"
    if len(done.sentences) != 1:
        return f"{len(done.sentences)} sentences: {done.err[-300:]}"
    return ""
