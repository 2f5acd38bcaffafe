# bash completion for `kptrace`: as ~/.local/share/bash-completion/completions/kptrace, or by
# `source`. The words come from kubectl_complete-kptrace, which has to be on PATH.

_kptrace() {
	# As typed: bash itself would split at : and =, which stand inside of our words.
	local line=${COMP_LINE:0:COMP_POINT} answer word
	local -a words found
	# shellcheck disable=SC2162 # a backslash before a space is meant as one
	read -a words <<<"$line"
	[[ $line == *[[:space:]] ]] && words+=('')
	answer=$(kubectl_complete-kptrace "${words[@]:1}" 2>/dev/null) || return
	while IFS=$'\t' read -r word _; do found+=("$word"); done <<<"$answer"

	COMPREPLY=()
	local last=$((${#found[@]} - 1)) typed=${words[${#words[@]} - 1]}
	local directive=${found[last]#:} before=''
	[[ $typed != --*=* && $typed == *:* ]] && before=${typed%:*}: # bash replaces what is behind it
	for word in "${found[@]:0:last}"; do COMPREPLY+=("${word#"$before"}"); done
	((directive & 2)) && compopt -o nospace
	((directive & 4)) || compopt -o default
}
complete -F _kptrace kptrace
