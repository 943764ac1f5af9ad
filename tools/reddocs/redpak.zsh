#compdef @COMMANDS@ dnf dnf5
# SPDX-License-Identifier: Apache-2.0
# Completion of redpak's commands in zsh. Made by scripts/generate-docs from tools/reddocs.

_redpak_static() {
    case "$1 ${2-}" in
@STATIC@
    esac
}

_redpak_kind() {
    case $1 in
@KINDS@
    *) echo file ;;
    esac
}

# Options with a value get no space behind.
_redpak_offer() {
    local -a plain valued
    plain=(${@:#*=}) valued=(${(M)@:#*=})
    compadd -- $plain
    compadd -S '' -- $valued
}

_redpak_ask() {
    local -a found
    found=(${(f)"$(red-conf complete --redpath=$redpak_node -- $1 $PREFIX 2> /dev/null)"})
    if [[ $1 == nodes ]]; then
        # An alias stands for the path of its node.
        compadd -U -i "$IPREFIX" -S '' -- ${(M)found:#*/}
        compadd -U -i "$IPREFIX" -- ${found:#*/}
    else
        compadd -- $found
    fi
}

_redpak_value() {
    local kind=$(_redpak_kind $1)
    case $kind in
    file) _files ;;
    directory) _files -/ ;;
    user) _users ;;
    group) _groups ;;
    command) _command_names -e ;;
    text) ;;
    \=*) compadd -- ${=kind#\=} ;;
    *) _redpak_ask $kind ;;
    esac
}

_redpak_packages() {
    case $1 in
@PACKAGES@
    esac
    case $1 in @FILES@) [[ $PREFIX != [./~]* ]] || _files -g '*.rpm' ;; esac
}

_redpak_takes_value() {
    [[ $2 == -* && $2 != *=* ]] || return 1
    case $1 in
    red-dnf | dnf | dnf5) [[ " @DNF_VALUED@ " == *" $2 "* ]] ;;
    *) [[ " $(_redpak_static $1 "$3") " == *" $2= "* ]] ;;
    esac
}

# Plain dnf: the lines about nodes are ours, all others those of the completion that is behind us in
# $fpath.
_redpak() {
    local service=${words[1]:t}
    if [[ $service != dnf(|5) ]] || _redpak_is_ours; then
        _redpak_line
    elif (( $+functions[_$service] )); then
        _$service
    else
        _default
    fi
}

# The command is red-..., or there is none yet and --redpath came.
_redpak_is_ours() {
    local word previous=""
    for word in ${words[2,CURRENT-1]} $PREFIX; do
        if ! _redpak_takes_value dnf "$previous"; then
            case $word in
            red* | --red* | --rpath* | --rp=* | --rmain*) return 0 ;;
            -*) ;;
            *) return 1 ;;
            esac
        fi
        previous=$word
    done
    return 1
}

_redpak_line() {
    local name=${words[1]:t} sub="" word previous="" redpak_node=${REDPATH-} option
    for word in ${words[2,CURRENT-1]}; do
        case $previous in --redpath|--rpath|--rp) redpak_node=$word ;; esac
        case $word in
        --redpath=*|--rpath=*|--rp=*) redpak_node=${word#*=} ;;
        --) [[ -n $sub ]] || sub=-- ;;
        -*) ;;
        *) if [[ -z $sub ]] && ! _redpak_takes_value $name "$previous" "$sub"; then sub=$word; fi ;;
        esac
        previous=$word
    done
    if [[ $PREFIX == --*=* ]]; then
        option=${PREFIX%%=*}
        compset -P '*='
        _redpak_value $option
    elif _redpak_takes_value $name "$previous" "$sub"; then
        _redpak_value $previous
    else
        _redpak_words $name "$sub"
    fi
}

_redpak_words() {
    case $1 in
    red-wrap)
        if [[ -z $2 && $PREFIX == -* ]]; then
            _redpak_offer ${=$(_redpak_static $1)}
        elif [[ -z $2 || $2 == -- ]]; then
            _redpak_ask programs
        else
            _files
        fi
        ;;
    red-dnf | dnf | dnf5)
        if [[ -z $2 ]]; then
            _redpak_offer ${=$(_redpak_static red-dnf)}
        elif [[ $PREFIX == -* ]]; then
            compadd -- ${=$($1 $2 --help 2> /dev/null |
                sed -n 's/^  \(-.*\)/\1/p' | grep -oE -e '(^|, )--[a-z-]+' | tr -d ', ')}
        else
            _redpak_packages $2
        fi
        ;;
    red-rpm)
        if [[ $PREFIX == -* ]]; then
            _redpak_offer ${=$(_redpak_static $1)}
        else
            _redpak_ask installed
            _files -g '*.rpm'
        fi
        ;;
    *)
        if [[ $PREFIX == -* || -z $2 ]]; then
            _redpak_offer ${=$(_redpak_static $1 "$2")}
        fi
        [[ $PREFIX == -* ]] || _redpak_ask nodes
        ;;
    esac
}

_redpak "$@"
