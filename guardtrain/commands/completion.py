"""`guardtrain completion SHELL`: a script that makes TAB complete commands, groups, options and settings."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from guardtrain.commands.registry import ACTIONS, COMMANDS, PLAIN_COMMANDS

# Each hands the line up to the cursor to `guardtrain completion query` and offers the lines that come back; where none
# do, the shell completes file names as it would have.
SCRIPTS = {
    "bash": """\
_guardtrain() {
    local line="${COMP_LINE:0:COMP_POINT}" word prefix="" found
    word="${line##* }"
    # bash takes what follows `=` for a word of its own, and wants only that completed
    [[ "$word" == *=* && "$COMP_WORDBREAKS" == *=* ]] && prefix="${word%%=*}="
    COMPREPLY=()
    while IFS= read -r found; do
        [[ -n "$found" ]] && COMPREPLY+=("${found#"$prefix"}")
    done < <(guardtrain completion query "$line" 2>/dev/null)
}
complete -o nospace -o default -F _guardtrain guardtrain""",
    "zsh": """\
_guardtrain() {
    local -a found
    found=(${(f)"$(guardtrain completion query "$LBUFFER" 2>/dev/null)"})
    if (( $#found )); then compadd -Q -S '' -- $found; else _files; fi
}
compdef _guardtrain guardtrain""",
    "fish": "complete -c guardtrain -a '(guardtrain completion query (commandline -cp | string collect) 2>/dev/null)'",
}
USAGE = """\
usage: guardtrain completion SHELL      SHELL: bash, zsh or fish

Prints what makes TAB complete guardtrain's commands, config groups, options and settings. To have it in each new shell:
  bash   echo 'eval "$(guardtrain completion bash)"' >> ~/.bashrc
  zsh    echo 'eval "$(guardtrain completion zsh)"' >> ~/.zshrc      (after compinit)
  fish   guardtrain completion fish > ~/.config/fish/completions/guardtrain.fish"""


def main(arguments: Sequence[str]) -> int:
    """Print a shell's script, or the completions of a line (`query LINE`, which the scripts ask); the exit code."""
    if len(arguments) == 2 and arguments[0] == "query":
        print("\n".join(completions(arguments[1])))
        return 0
    if len(arguments) == 1 and arguments[0] in SCRIPTS:
        print(SCRIPTS[arguments[0]])
        return 0
    wanted = len(arguments) == 1 and arguments[0] in ("-h", "--help")
    print(USAGE, file=sys.stdout if wanted else sys.stderr)
    return 0 if wanted else 2


def completions(line: str) -> list[str]:
    """Complete a command line's last word up to the cursor, as whole words; empty where files are wanted.

    >>> completions("guardtrain cu")
    ['curve ']
    """
    words = line.split(" ")
    before, last = [word for word in words[:-1] if word], words[-1]
    if len(before) <= 1:
        return [f"{name} " for name in (*COMMANDS, *PLAIN_COMMANDS) if name.startswith(last)]
    command = before[1]
    if command == "completion":
        return [name for name in SCRIPTS if name.startswith(last)]
    if command not in COMMANDS:
        return []
    from guardtrain.commands.config_path import own_configs_in, set_own_configs

    set_own_configs(own_configs_in(before))
    actions = ACTIONS.get(command, ()) if len(before) == 2 else ()
    return [f"{name} " for name in actions if name.startswith(last)] + _settings(command, before[2:], last)


def _settings(command: str, before: Sequence[str], word: str) -> list[str]:
    """Config groups, their options, and settings that begin with `word`."""
    from guardtrain.commands.settings_tree import Tree, offered, settings_tree
    from guardtrain.config_groups import config_groups

    groups = config_groups(command)
    group = word.partition("=")[0]
    if "=" in word and group in groups:
        from guardtrain.commands.options import options_of

        return [each for path in options_of(command, group) if (each := f"{group}={path.stem}").startswith(word)]
    given = {name: option for name, equals, option in (one.partition("=") for one in before) if equals}
    chosen = {name: option for name, option in given.items() if name in groups}
    tree: Tree = {name: {} for name in groups} | settings_tree(command, chosen)
    return offered(tree, word, groups)
