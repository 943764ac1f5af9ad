# SPDX-License-Identifier: Apache-2.0
# Completion of the red- commands of plain dnf, in front of dnf's own, which is loaded at need.
# Made by scripts/generate-docs from tools/reddocs.
_redpak_dnf() {
    local name=${1##*/} own
    if _redpak_is_ours; then
        declare -F _redpak > /dev/null || . "$_redpak_completions/red-dnf" || return
        _redpak "$@"
        return
    fi
    if ! declare -p "_redpak_own_$name" > /dev/null 2>&1; then
        complete -r "$name"
        { _comp_load "$name" || _completion_loader "$name"; } > /dev/null 2>&1
        own=$(complete -p "$name" 2> /dev/null)
        declare -g "_redpak_own_$name="
        if [[ $own =~ ^(.*' -F ')([A-Za-z_][A-Za-z0-9_]*)(' '.*)$ ]]; then
            declare -g "_redpak_own_$name=${BASH_REMATCH[2]}"
            eval "${BASH_REMATCH[1]}_redpak_dnf${BASH_REMATCH[3]}" # with dnf's own settings
        else
            complete -o default -F _redpak_dnf "$name"
        fi
    fi
    own=_redpak_own_$name
    if [ -n "${!own}" ] && declare -F "${!own}" > /dev/null; then "${!own}" "$@"; fi
}
# The command is red-..., or there is none yet and --redpath came.
_redpak_is_ours() {
    local word previous="" valued=" @DNF_VALUED@ "
    local -a words
    read -r -a words <<< "${COMP_LINE:0:COMP_POINT}"
    for word in "${words[@]:1}"; do
        if [[ $previous != -* || $valued != *" $previous "* ]]; then
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
_redpak_completions=${BASH_SOURCE[0]%/etc/*}
[ "$_redpak_completions" != "" ] || _redpak_completions=/usr
_redpak_completions+=/share/bash-completion/completions
complete -o default -F _redpak_dnf dnf dnf5
