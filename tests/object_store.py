"""A stand-in for gcsfs: gs:// in memory. One class for all tests, because epath keeps the first that it is given."""

import fsspec
from fsspec.implementations.memory import MemoryFileSystem


class Killed(BaseException):
    """The process ends here."""


class ObjectStore(MemoryFileSystem):
    """An object store as fsspec sees one: folders are copied and removed file by file.

    Attributes:
        allowed: calls after which the process is killed.
        broken: names whose upload fails.
    """

    store, pseudo_dirs, allowed, broken = {}, [""], 10**9, ()

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(str(path).removeprefix("gs://"))

    def _open(self, path, mode="rb", **kwargs):
        if "w" in mode and path.endswith(ObjectStore.broken):
            raise OSError("the network is gone")
        return super()._open(path, mode, **kwargs)

    def cp_file(self, path1, path2, **kwargs):
        self.count()
        super().cp_file(path1, path2, **kwargs)

    def _rm(self, path):
        self.count()
        super()._rm(path)

    def count(self):
        if not ObjectStore.allowed:
            raise Killed
        ObjectStore.allowed -= 1


fsspec.register_implementation("gcs", ObjectStore, clobber=True)
