# SPDX-License-Identifier: Apache-2.0
"""red-wrap: run an application in the namespace of a family of nodes.

parse (cli) -> merge (redpak) -> plan (plan, operations) -> check (sources, lookup) -> execute
(launch). Read the modules in that order.
"""
