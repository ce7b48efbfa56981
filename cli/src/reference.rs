//! docs/reference/cli.md, made from the flags.

use std::fmt::Write as _;

use clap::{Command, CommandFactory};

use crate::command::{Cli, EXIT_CODES};

/// The reference page.
pub(crate) fn markdown() -> String {
    let mut root = Cli::command();
    root.build();
    let mut text = String::from(
        "# `weft`, the command line\n\n\
         <!-- Made from the program by `weft reference > docs/reference/cli.md`; a test compares. -->\n\n\
         Data goes to standard output, messages to standard error. Colours are used on a terminal only, and not where\n\
         `NO_COLOR` is set.\n\n",
    );
    let _ = write!(text, "```text\n{EXIT_CODES}\n```\n");
    for command in root.get_subcommands().filter(|command| !command.is_hide_set() && command.get_name() != "help") {
        section(&mut text, command);
    }
    text
}

fn section(text: &mut String, command: &Command) {
    let mut command = command.clone();
    let help = command.render_long_help().to_string();
    let help: Vec<_> = help.lines().map(str::trim_end).collect();
    // Writing to a String does not fail.
    let _ = write!(text, "\n## `weft {}`\n\n```text\n{}\n```\n", command.get_name(), help.join("\n").trim_end());
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_reference_page_is_up_to_date() {
        let path = "../docs/reference/cli.md";
        let page = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            page == super::markdown(),
            "docs/reference/cli.md is out of date: cargo run -p weft-cli -- reference > docs/reference/cli.md"
        );
    }
}
