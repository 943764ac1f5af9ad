# SPDX-License-Identifier: Apache-2.0
# Where dnf5's loader of Python plugins looks: without it plain dnf5 refuses the red- commands.
: "${LIBDNF_PYTHON_PLUGIN_DIR:=@PLUGINS@}"
export LIBDNF_PYTHON_PLUGIN_DIR
