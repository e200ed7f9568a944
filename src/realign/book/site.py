"""Execute chapters with papermill and compile the site with jupyter-book.

papermill ignores unknown parameters and marks every cell completed on an interrupt. So parameters are
checked before anything runs, and an executed notebook takes its place only after every cell is seen to
have run.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbformat
from filelock import FileLock, Timeout

from realign import paths
from realign.book.chapters import CHAPTERS, Chapter
from realign.errors import RealignError

if TYPE_CHECKING:
    from jupyter_client import AsyncKernelManager

# What TeX on our pages needs of MathJax: a fifth of the package.
MATHJAX = ("tex-mml-chtml.js", "output/chtml/fonts/woff-v2", "input/tex/extensions")


def execute(chapter: Chapter, parameters: Mapping[str, object], output: Path | None = None) -> Path:
    """Execute a chapter with parameters and return the finished notebook.

    Args:
        chapter: one of the book.
        parameters: values for the notebook's tagged cell.
        output: where the executed notebook goes; None is its place in the book.

    Raises:
        UsageError: for an unknown parameter or a value of the wrong type.
        RealignError: when a cell fails; names the cell and the error, keeps the failed notebook. Or when its
            kernel dies.
    """
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError
    from traitlets.config import Config

    chapter.complete(parameters)
    output = output or chapter.executed
    with _workspace(chapter.file) as work:
        temporary, words = work / "executed.ipynb", work / "kernel.log"
        try:
            papermill.execute_notebook(
                str(chapter.convert(work)),
                str(temporary),
                parameters=dict(parameters),
                kernel_name="python3",
                cwd=str(paths.root()),
                progress_bar=sys.stderr.isatty(),
                log_output=False,
                # Without encryption the kernel warns on stderr that others on this machine can listen.
                config=Config({"KernelManager": {"transport_encryption": "auto"}}),
                kernel_manager_class=_kernels(words),
            )
        except PapermillExecutionError as error:
            failed = paths.artifacts() / "failed" / f"{chapter.file}-{time.strftime('%Y%m%dT%H%M%S')}.ipynb"
            failed.parent.mkdir(parents=True, exist_ok=True)
            temporary.replace(failed)
            raise RealignError(
                f"chapter {chapter.name}: cell {error.exec_count} failed with {error.ename}: {error.evalue} "
                f"(the notebook as far as it ran: {failed})"
            ) from None
        except DeadKernelError:
            said = words.read_text(encoding="utf-8", errors="replace").split("\n") if words.is_file() else []
            last = next((line.strip() for line in reversed(said) if line.strip()), "it said nothing")
            raise RealignError(
                f"chapter {chapter.name}: its process died, perhaps for want of memory (last words: {last[:200]})"
            ) from None
        notebook = nbformat.read(temporary, as_version=4)
        check_executed(notebook, chapter.name)
        nbformat.write(without_traces(notebook), temporary)
        output.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(temporary, output.with_name(f".{output.name}.tmp"))  # the store may be another disk
        output.with_name(f".{output.name}.tmp").replace(output)
    return output


def _kernels(words: Path) -> type[AsyncKernelManager]:
    """Return a manager whose kernels write to a file what is not a cell's output: many end with a warning."""
    from jupyter_client import AsyncKernelManager

    class Manager(AsyncKernelManager):
        async def _async_launch_kernel(self, kernel_cmd: list[str], **options: Any) -> None:
            with words.open("ab") as file:
                await super()._async_launch_kernel(kernel_cmd, **options | {"stderr": file})

    return Manager


@contextmanager
def _workspace(name: str) -> Iterator[Path]:
    """Give a folder of the store's .tmp, removed at the end; those of killed runs are removed first."""
    parent = paths.artifacts() / ".tmp"
    parent.mkdir(parents=True, exist_ok=True)
    for folder in parent.glob("chapter-*/"):
        try:
            with FileLock(f"{folder}.lock", timeout=0):
                shutil.rmtree(folder, ignore_errors=True)
                Path(f"{folder}.lock").unlink()
        except Timeout:  # another process is executing that chapter
            continue
    work = parent / f"chapter-{name}-{os.getpid()}-{time.monotonic_ns()}"
    with FileLock(f"{work}.lock"):
        work.mkdir()
        try:
            yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)
            Path(f"{work}.lock").unlink(missing_ok=True)


def check_executed(notebook: nbformat.NotebookNode, name: str) -> None:
    """Check that every code cell ran without an error.

    Raises:
        RealignError: names the first cell that did not.
    """
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type != "code" or not cell.source.strip():
            continue
        if cell.get("execution_count") is None:
            raise RealignError(f"chapter {name}: cell {number} did not run; execute the chapter again")
        if any(output.output_type == "error" for output in cell.outputs):
            raise RealignError(f"chapter {name}: cell {number} ended in an error")


def without_traces(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Drop what says where and when a notebook ran: papermill's paths and times, and stderr.

    The executed notebook can be downloaded from the site; its parameters stay in its metadata.
    """
    given = notebook.metadata.get("papermill", {}).get("parameters", {})
    notebook.metadata["papermill"] = {"parameters": given}
    for cell in notebook.cells:
        cell.metadata.pop("papermill", None)
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    return notebook


def missing_chapters() -> list[Chapter]:
    """Return the chapters that were never executed here."""
    return [chapter for chapter in CHAPTERS if not chapter.executed.is_file()]


def build(*, strict: bool = True, output: Path | None = None) -> Path:
    """Compile book/ into HTML and return index.html. Needs no network.

    Raises:
        RealignError: on any warning (``strict``) or error, with the last lines of the log.
    """
    root = paths.root()
    output = output or root / "book"
    if missing := missing_chapters():
        names = ", ".join(chapter.file for chapter in missing)
        raise RealignError(f"chapters not executed yet: {names}; run 'realign book'")
    copy_mathjax(root / "book")
    program = "from jupyter_book.cli.main import main; main()"
    command = [sys.executable, "-c", program, "build", str(root / "book")]
    command += ["--config", str(root / "_config.yml"), "--path-output", str(output), "-n", "--keep-going"]
    command += ["-W"] if strict else []
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, env=environment, check=False)
    index = output / "_build" / "html" / "index.html"
    if done.returncode != 0 or not index.is_file():
        log = (done.stdout + done.stderr).splitlines()
        lines = [line for line in log if "WARNING" in line or "ERROR" in line]
        shown = "\n".join((lines or log)[-20:])
        raise RealignError(f"jupyter-book could not build the site:\n{shown}")
    return index


def copy_mathjax(book: Path) -> None:
    """Copy MathJax from its wheel to book/_extra, so that no page asks another host for it.

    A copy that is not whole (a run was killed) is made again: copied aside, then renamed.

    Raises:
        RealignError: if the package is missing or laid out differently.
    """
    spec = find_spec("mathjax")
    if spec is None or spec.origin is None:
        raise RealignError("MathJax is missing: install the locked requirements (django-static-mathjax)")
    source = Path(spec.origin).parent / "static" / "mathjax" / "es5"
    target = book / "_extra" / "mathjax"
    wanted = _sizes(source, MATHJAX)
    for name in MATHJAX:
        if not any(file == name or file.startswith(f"{name}/") for file in wanted):
            raise RealignError(f"no {name} in {source}: install the locked version of django-static-mathjax")
    if _sizes(target, MATHJAX) == wanted:
        return
    aside = book / ".mathjax.tmp"
    for folder in (aside, target):
        shutil.rmtree(folder, ignore_errors=True)
    for file in wanted:
        place = aside / file
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / file, place)
    target.parent.mkdir(exist_ok=True)
    aside.rename(target)


def _sizes(folder: Path, names: tuple[str, ...]) -> dict[str, int]:
    """Size of every file at or below the named places, by path inside the folder."""
    files = [
        file for name in names for file in ((folder / name), *(folder / name).rglob("*")) if file.is_file()
    ]
    return {file.relative_to(folder).as_posix(): file.stat().st_size for file in files}
