# fish completion for `kptrace`: as ~/.config/fish/completions/kptrace.fish. The words come from
# kubectl_complete-kptrace, which has to be on PATH.

function __kptrace_complete
    set -l words (commandline -opc)
    set -l typed (commandline -ct | string unescape)[1]
    set -l lines (kubectl_complete-kptrace $words[2..] "$typed" 2>/dev/null)
    or return
    set -l directive (string replace : '' $lines[-1])
    set -e lines[-1]
    # fish wants whole words where the program tells only what follows the =
    set -l before (string match -r -- '^--[^=]*=' $typed)
    for line in $lines
        echo "$before"$line
    end
    test $directive = 0
    and __fish_complete_path "$typed"
end

complete -c kptrace -f -a '(__kptrace_complete)'
