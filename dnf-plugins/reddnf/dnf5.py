# SPDX-License-Identifier: Apache-2.0
"""A node's configuration in terms of dnf5, for its plugin and for red-manager."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from typing import Any

import libdnf5
import libdnf5.exception

from reddnf.bundling import not_in_repositories
from reddnf.freezing import Again
from reddnf.repofiles import no_such_option, wrong_value
from redpak.errors import RedpakError
from redpak.node import Node
from redrpm.session import find_releasever

ERRORS = (RuntimeError, libdnf5.exception.Error)


def tell(text: str) -> None:
    """A line for the user, on stderr."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def read_options(base: Any, node: Node) -> None:
    """Point dnf5 at the node's options, repositories, variables, cache and log.

    Raises RedpakError.
    """
    config = base.get_config()
    own = f"{node.path}/etc/dnf/dnf.conf"
    if os.path.exists(own):
        parser = libdnf5.conf.ConfigParser()
        logger = base.get_logger().get()
        try:
            parser.read(own)
            config.load_from_parser(parser, "main", base.get_vars().get(), logger)
        except ERRORS as err:
            raise RedpakError(f"{own}: {err}") from err
        config.config_file_path = own
    if os.environ.get("NO_COLOR") and getattr(config, "color", "") == "auto":
        config.color = "never"  # dnf5 does not know of it
    config.reposdir = [node.repos_dir]
    config.varsdir = [node.vars_dir]
    variables = base.get_vars()
    if not variables.contains("releasever"):
        variables.set("releasever", find_releasever(node, ""))
    caches = os.path.dirname(node.cache_dir)
    home = os.path.expanduser("~")
    # dnf4 and dnf5 keep their metadata apart; who may not write the node has his own.
    own_cache = f"{caches}/libdnf5" if os.access(caches, os.W_OK) else f"{home}/.cache/libdnf5"
    config.cachedir = own_cache
    config.system_cachedir = own_cache
    log = f"{node.path}/var/log"
    config.logdir = log if os.access(log, os.W_OK) else f"{home}/.local/state"


class Dnf5:
    """reddnf.manage.FrontEnd for dnf5."""

    def __init__(self) -> None:
        self._base = libdnf5.base.Base()
        self._base.get_config().plugins = False
        self._vars_dir = ""

    def read_node(self, node: Node) -> None:
        self._vars_dir = node.vars_dir
        self._base.get_config().use_host_config = True
        self._base.load_config()
        read_options(self._base, node)
        self._base.setup()
        self._base.get_repo_sack().create_repos_from_system_configuration()

    def check_option(self, name: str, value: str, of_repository: bool) -> None:
        main = libdnf5.conf.ConfigMain()
        config = libdnf5.repo.ConfigRepo(main, "any") if of_repository else main
        if not hasattr(config, name):
            raise no_such_option(name, of_repository)
        try:
            config.opt_binds().at(name).new_string(libdnf5.conf.Option.Priority_RUNTIME, value)
        except ERRORS as err:
            raise wrong_value(name, value, err) from err

    def dump(self, wanted: Sequence[str]) -> None:
        if not wanted:
            print("======== main ========")
            _print_options(self._base.get_config())
        for repo in sorted(libdnf5.repo.RepoQuery(self._base), key=lambda repo: repo.get_id()):
            if not wanted or repo.get_id() in wanted:
                print(f"======== repo: {repo.get_id()} ========")
                _print_options(repo.get_config())

    def download(self, labels: Sequence[str]) -> list[str]:
        if not labels:
            return []
        try:
            self._base.get_repo_sack().load_repos(libdnf5.repo.Repo.Type_AVAILABLE)
            query = libdnf5.rpm.PackageQuery(self._base)
            found = {package.get_nevra(): package for package in query}
            downloader = libdnf5.repo.PackageDownloader(self._base)
            for label in labels:
                downloader.add(found[label])
            downloader.download()
        except KeyError as err:
            raise not_in_repositories(err.args[0]) from err
        except RuntimeError as err:
            raise RedpakError(f"cannot fetch packages: {err}") from err
        return [found[label].get_package_path() for label in labels]

    def again(self) -> Again:
        # The environment says where our plugin is, inside dnf5 and below red-dnf alike.
        return Again([shutil.which("dnf5") or "dnf5"], "dependency")

    def dump_variables(self) -> None:
        variables = self._base.get_vars()
        # Python sees no list of them (libdnf5 5.4).
        own = os.listdir(self._vars_dir) if os.path.isdir(self._vars_dir) else []
        for name in sorted({"arch", "basearch", "releasever", *own}):
            if variables.contains(name):
                print(f"{name} = {variables.get_value(name)}")


def _print_options(config: Any) -> None:
    options = config.opt_binds()
    # Python's iteration over them never ends (libdnf5 5.4): the names are those of the methods.
    for method in sorted(dir(config)):
        if method.startswith("get_") and method.endswith("_option"):
            name = method[len("get_") : -len("_option")]
            try:
                print(f"{name} = {options.at(name).get_value_string()}")
            except ERRORS:
                continue  # it has no value, or is no option of a file
