# SPDX-License-Identifier: Apache-2.0
# Completion of redpak's commands in bash. Made by scripts/generate-docs from tools/reddocs.

# _redpak_static COMMAND [SUBCOMMAND]: options, and the subcommands when there is none yet.
_redpak_static() {
    case "$1 ${2-}" in
@STATIC@
    esac
}

# What the value of an option is: a kind of red-conf complete, or of compgen.
_redpak_kind() {
    case $1 in
@KINDS@
    *) echo file ;;
    esac
}

# _redpak_offer WORD...: those that start with $_redpak_cur; an option with a value gets no space.
_redpak_offer() {
    local word
    for word; do
        if [[ $word == "$_redpak_cur"* ]]; then
            COMPREPLY+=("$word")
            if [[ $word == *[=/] ]]; then compopt -o nospace 2> /dev/null; fi
        fi
    done
}

# _redpak_ask KIND: what the nodes know (red-conf complete).
_redpak_ask() {
    local words
    mapfile -t words < <(red-conf complete "--redpath=$_redpak_node" -- "$1" "$_redpak_cur" \
        2> /dev/null)
    # An alias stands for the path of its node, which need not start with it.
    if [ "$1" = nodes ]; then
        COMPREPLY+=("${words[@]}")
        if [ ${#words[@]} = 1 ] && [[ ${words[0]} == */ ]]; then compopt -o nospace; fi
    else
        _redpak_offer "${words[@]}"
    fi
}

_redpak_value() {
    local kind
    kind=$(_redpak_kind "$1")
    case $kind in
    file | directory | user | group | command)
        compopt -o filenames 2> /dev/null
        mapfile -t COMPREPLY < <(compgen -A "$kind" -- "$_redpak_cur")
        ;;
    text) ;;
    =*) _redpak_offer ${kind#=} ;;
    *) _redpak_ask "$kind" ;;
    esac
}

# The packages that a dnf command takes; files of packages where a path begins.
_redpak_packages() {
    case $1 in
@PACKAGES@
    esac
    case $1 in @FILES@) if [[ $_redpak_cur == [./~]* ]]; then _redpak_package_files; fi ;; esac
}

# Package files, and the directories on the way to them.
_redpak_package_files() {
    compopt -o filenames 2> /dev/null
    mapfile -t -O ${#COMPREPLY[@]} COMPREPLY < <(compgen -f -X '!*.rpm' -- "$_redpak_cur"
        [[ $_redpak_cur != [./~]* ]] || compgen -d -- "$_redpak_cur")
}

_redpak() {
    local command=${1##*/} sub="" word previous="" option="" _redpak_node=${REDPATH-} _redpak_cur
    local -a words
    # The words as typed: bash itself splits them at each = as well.
    read -r -a words <<< "${COMP_LINE:0:COMP_POINT}"
    _redpak_cur=""
    if [[ ${COMP_LINE:0:COMP_POINT} != *[[:space:]] ]]; then
        _redpak_cur=${words[-1]}
        unset 'words[-1]'
    fi
    COMPREPLY=()
    for word in "${words[@]:1}"; do
        case $previous in --redpath | --rpath | --rp) _redpak_node=$word ;; esac
        case $word in
        --redpath=* | --rpath=* | --rp=*) _redpak_node=${word#*=} ;;
        --) [ -n "$sub" ] || sub=-- ;;
        -*) ;;
        *) if [ -z "$sub" ] && ! _redpak_takes_value "$command" "$previous" "$sub"; then sub=$word; fi ;;
        esac
        previous=$word
    done
    if [[ $_redpak_cur == --*=* ]]; then
        option=${_redpak_cur%%=*}
        _redpak_cur=${_redpak_cur#*=}
        _redpak_value "$option"
        # Where = does not split words, the reply is the whole word.
        [[ $COMP_WORDBREAKS == *=* ]] || COMPREPLY=("${COMPREPLY[@]/#/$option=}")
    elif _redpak_takes_value "$command" "$previous" "$sub"; then
        _redpak_value "$previous"
    else
        _redpak_words "$command" "$sub"
    fi
}

# Whether the word after this one is its value.
_redpak_takes_value() {
    [[ $2 == -* && $2 != *=* ]] || return 1
    case $1 in
    red-dnf | dnf | dnf5) [[ " @DNF_VALUED@ " == *" $2 "* ]] ;;
    *) [[ " $(_redpak_static "$1" "$3") " == *" $2= "* ]] ;;
    esac
}

_redpak_words() {
    case $1 in
    red-wrap)
        if [ -z "$2" ] && [[ $_redpak_cur == -* ]]; then
            _redpak_offer $(_redpak_static "$1")
        elif [ -z "$2" ] || [ "$2" = -- ]; then
            _redpak_ask programs
        else
            compopt -o filenames
            mapfile -t COMPREPLY < <(compgen -f -- "$_redpak_cur")
        fi
        ;;
    red-dnf | dnf | dnf5)
        if [ -z "$2" ]; then
            _redpak_offer $(_redpak_static red-dnf)
        elif [[ $_redpak_cur == -* ]]; then
            # What this dnf's command has; the commands are dnf's own, and so are their options.
            _redpak_offer $("$1" "$2" --help 2> /dev/null |
                sed -n 's/^  \(-.*\)/\1/p' | grep -oE -e '(^|, )--[a-z-]+' | tr -d ', ')
        else
            _redpak_packages "$2"
        fi
        ;;
    red-rpm)
        if [[ $_redpak_cur == -* ]]; then
            _redpak_offer $(_redpak_static "$1")
        else
            _redpak_ask installed
            _redpak_package_files
        fi
        ;;
    *)
        if [[ $_redpak_cur == -* ]] || [ -z "$2" ]; then
            _redpak_offer $(_redpak_static "$1" "$2")
        fi
        if [ ${#COMPREPLY[@]} = 0 ] && [[ $_redpak_cur != -* ]]; then _redpak_ask nodes; fi
        ;;
    esac
}

complete -F _redpak @COMMANDS@
