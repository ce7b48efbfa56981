//! The arguments of the standard harness that make sense here.

/// Which tests to run, and how to show it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Arguments {
    filters: Vec<String>,
    skips: Vec<String>,
    exact: bool,
    /// No test is marked as ignored beforehand, so this chooses none.
    only_ignored: bool,
    pub(super) list: bool,
    pub(super) show_output: bool,
    pub(super) quiet: bool,
}

impl Arguments {
    /// Reads the arguments after the program's name.
    pub(super) fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Self, String> {
        let mut parsed = Self::default();
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let (name, inline) = match argument.split_once('=') {
                Some((name, value)) if name.starts_with("--") => (name.to_owned(), Some(value.to_owned())),
                _ => (argument, None),
            };
            let mut value = || inline.clone().or_else(|| arguments.next()).ok_or(format!("{name} needs a value"));
            match name.as_str() {
                "--list" => parsed.list = true,
                "--exact" => parsed.exact = true,
                "--ignored" => parsed.only_ignored = true,
                "--nocapture" | "--no-capture" => parsed.show_output = true,
                "-q" | "--quiet" => parsed.quiet = true,
                "--skip" => parsed.skips.push(value()?),
                // Tests run one at a time in any case, and there is one format.
                "--test-threads" | "--format" | "--color" | "--logfile" | "-Z" => drop(value()?),
                "--include-ignored" | "--show-output" | "--test" | "--bench" => {}
                flag if flag.starts_with('-') => {
                    return Err(format!(
                        "unknown argument {flag}: this harness knows --list, --exact, --skip NAME, --nocapture and filters"
                    ));
                }
                _ => parsed.filters.push(name),
            }
        }
        Ok(parsed)
    }

    /// Whether the test of that name is chosen.
    pub(super) fn choose(&self, name: &str) -> bool {
        let matches = |pattern: &String| {
            if self.exact { name == pattern } else { name.contains(pattern.as_str()) }
        };
        let wanted = self.filters.is_empty() || self.filters.iter().any(matches);
        wanted && !self.skips.iter().any(matches) && !self.only_ignored
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(arguments: &[&str]) -> Vec<&'static str> {
        let arguments = Arguments::parse(arguments.iter().map(|&argument| argument.to_owned())).unwrap();
        ["retries", "retries_twice", "ejects"].into_iter().filter(|name| arguments.choose(name)).collect()
    }

    #[test]
    fn a_filter_chooses_by_part_of_the_name_unless_exact() {
        assert_eq!(chosen(&[]), ["retries", "retries_twice", "ejects"]);
        assert_eq!(chosen(&["retries"]), ["retries", "retries_twice"]);
        assert_eq!(chosen(&["retries", "--exact"]), ["retries"]);
        assert_eq!(chosen(&["--skip", "twice", "--test-threads=4"]), ["retries", "ejects"]);
        assert_eq!(chosen(&["--ignored"]), [""; 0]);
    }

    #[test]
    fn an_unknown_argument_is_refused_with_those_known() {
        let error = Arguments::parse(["--shuffle".to_owned()]).unwrap_err();
        assert!(error.contains("--shuffle") && error.contains("--exact"), "{error}");
    }
}
