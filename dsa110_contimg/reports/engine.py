"""papermill's engine with two things added: progress goes to a function, and the kernel is this interpreter.

Jupyter looks for kernels in the user's folders first, where a ``python3`` of another environment may stand, and IPython
runs what it finds in the user's profile: a report must not depend on either, and nothing is written there. The kernel
talks through sockets in a private folder, where its own log stands too. papermill keeps its notebook to itself when a
kernel dies; here it stays in reach.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ipykernel.kernelspec import RESOURCES, get_kernel_dict
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbformat import NotebookNode
from papermill.engines import NBClientEngine, NotebookExecutionManager
from traitlets import Unicode, default
from traitlets.config import Config

NAME = "dsa110"


class Run:
    """One execution: where it is, and the notebook as far as it got.

    Parameters
    ----------
    folder : private folder of the kernel, to be deleted afterwards.
    progress : called before each cell
    """

    def __init__(self, folder: Path, progress: Callable[[int, int, str], None] | None = None) -> None:
        self.folder = folder
        self.progress = progress
        self.notebook: NotebookNode = NotebookNode()
        self.current = ""

    @property
    def log(self) -> Path:
        """What the kernel process itself printed."""
        return self.folder / "kernel.log"

    def cell_starts(self, cell: NotebookNode, index: int) -> None:
        """Remember the cell, and tell who wants to know."""
        if cell.cell_type == "code":
            self.current = cell.get("id", f"cell-{index}")
        if self.progress is not None:
            self.progress(index, len(self.notebook.cells), cell.get("id", f"cell-{index}"))


class OwnKernelSpecs(KernelSpecManager):  # type: ignore[misc]
    """Knows one kernel: ipykernel of ``sys.executable``."""

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:  # noqa: ARG002 (the signature is Jupyter's)
        """The only one, under any name."""
        return KernelSpec(resource_dir=RESOURCES, **get_kernel_dict())


class OwnKernelManager(AsyncKernelManager):
    """Starts that kernel, its own messages going to a file."""

    log_path = Unicode().tag(config=True)

    @default("kernel_spec_manager")
    def _own_specs(self) -> OwnKernelSpecs:
        return OwnKernelSpecs(parent=self)

    async def start_kernel(self, **options: Any) -> None:  # type: ignore[override]  # async in AsyncKernelManager too
        """Start it."""
        with Path(self.log_path).open("ab") as log:
            await super().start_kernel(stdout=log, stderr=log, **options)


class OwnKernelEngine(NBClientEngine):  # type: ignore[misc]
    """papermill's usual engine on that kernel."""

    @classmethod
    def execute_managed_notebook(
        cls, nb_man: NotebookExecutionManager, kernel_name: str, *, run: Run, **options: Any
    ) -> Any:
        """Run the cells.

        Parameters
        ----------
        nb_man : papermill's manager of the notebook
        kernel_name : handed on; there is only one kernel
        run : told of every cell
        """
        run.notebook = nb_man.nb
        starts = nb_man.cell_start

        def cell_start(cell: NotebookNode, cell_index: int | None = None, **more: Any) -> None:
            run.cell_starts(cell, cell_index or 0)
            starts(cell, cell_index, **more)

        nb_man.cell_start = cell_start
        profile = run.folder / "ipython"
        profile.mkdir()
        connection = {"transport": "ipc", "connection_file": str(run.folder / "kernel.json")}
        return super().execute_managed_notebook(
            nb_man,
            kernel_name,
            kernel_manager_class=OwnKernelManager,
            config=Config({"OwnKernelManager": {"log_path": str(run.log), **connection}}),
            extra_arguments=[f"--ipython-dir={profile}"],
            **options,
        )
