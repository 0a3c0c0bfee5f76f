"""papermill's engine with two things added: progress goes to a function, and the kernel is this interpreter.

Jupyter looks for kernels in the user's folders first, where a ``python3`` of another environment may stand. And papermill
keeps its notebook to itself when a kernel dies; here it stays in reach.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ipykernel.kernelspec import RESOURCES, get_kernel_dict
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbformat import NotebookNode
from papermill.engines import NBClientEngine, NotebookExecutionManager
from traitlets import default

NAME = "dsa110"


class Run:
    """One execution: where it is, and the notebook as far as it got."""

    def __init__(self, progress: Callable[[int, int, str], None] | None = None) -> None:
        self.progress = progress
        self.notebook: NotebookNode = NotebookNode()
        self.current = ""

    def cell_starts(self, cell: NotebookNode, index: int) -> None:
        """Remember the cell, and tell who wants to know."""
        if cell.cell_type == "code":
            self.current = cell.get("id", f"cell-{index}")
        if self.progress is not None:
            self.progress(index, len(self.notebook.cells), cell.get("id", f"cell-{index}"))


class OwnKernelSpecs(KernelSpecManager):  # type: ignore[misc]
    """Knows one kernel: ipykernel of ``sys.executable``."""

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        """The only one, under any name."""
        return KernelSpec(resource_dir=RESOURCES, **get_kernel_dict())


class OwnKernelManager(AsyncKernelManager):
    """Starts that kernel."""

    @default("kernel_spec_manager")
    def _own_specs(self) -> OwnKernelSpecs:
        return OwnKernelSpecs(parent=self)


class OwnKernelEngine(NBClientEngine):  # type: ignore[misc]
    """papermill's usual engine on that kernel."""

    @classmethod
    def execute_managed_notebook(
        cls, nb_man: NotebookExecutionManager, kernel_name: str, run: Run | None = None, **kwargs: Any
    ) -> Any:
        """Run the cells.

        Parameters
        ----------
        nb_man : papermill's manager of the notebook
        kernel_name : handed on; there is only one kernel
        run : told of every cell
        """
        if run is not None:
            run.notebook = nb_man.nb
            starts = nb_man.cell_start

            def cell_start(cell: NotebookNode, cell_index: int | None = None, **more: Any) -> None:
                run.cell_starts(cell, cell_index or 0)
                starts(cell, cell_index, **more)

            nb_man.cell_start = cell_start
        return super().execute_managed_notebook(
            nb_man, kernel_name, kernel_manager_class=OwnKernelManager, **kwargs
        )
