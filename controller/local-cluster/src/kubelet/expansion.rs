//! `$(VAR)` references in environment, command and arguments, as Kubernetes expands them. Pure.

/// Replaces each `$(NAME)` that `value` knows; `$$` is a dollar, and everything else stays as it is.
pub(super) fn expand(text: &str, value: impl Fn(&str) -> Option<String>) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        result.push_str(before);
        if let Some(after) = after.strip_prefix('$') {
            result.push('$');
            rest = after;
        } else if let Some((name, after)) = after
            .strip_prefix('(')
            .and_then(|open| open.split_once(')'))
        {
            match value(name) {
                Some(value) => result.push_str(&value),
                None => result.extend(["$(", name, ")"]),
            }
            rest = after;
        } else {
            result.push('$');
            rest = after;
        }
    }
    result.push_str(rest);
    result
}

#[cfg(test)]
mod tests {
    use super::expand;

    /// Rows of Kubernetes' own table (`third_party/forked/golang/expansion/expand_test.go`).
    #[test]
    fn expansion_is_that_of_kubernetes() {
        for (input, expected) in [
            ("$(VAR_A)", "A"),
            ("___$(VAR_B)___", "___B___"),
            ("___$(VAR_C)", "___C"),
            ("$(VAR_A)-$(VAR_A)", "A-A"),
            ("$(VAR_A)-1", "A-1"),
            ("$(VAR_DNE)", "$(VAR_DNE)"),
            ("$(VAR_REF)", "$(VAR_A)"),
            ("$$(VAR_B)_$(VAR_A)", "$(VAR_B)_A"),
            ("$$$(VAR_A)", "$A"),
            ("$$$$(VAR_A)", "$$(VAR_A)"),
            ("$$$$$(VAR_A)", "$$A"),
            ("$VAR_A)", "$VAR_A)"),
            ("${VAR_A}", "${VAR_A}"),
            ("foo$(VAR_A)bar$(VAR_B", "fooAbar$(VAR_B"),
            ("$$VAR_A", "$VAR_A"),
            ("$(VAR_EMPTY)x", "x"),
            ("$", "$"),
            ("$$", "$"),
            ("a$", "a$"),
            ("$?_boo_$", "$?_boo_$"),
            ("$()", "$()"),
            ("$(foo$$var)", "$(foo$$var)"),
            ("\n$(VAR_A)ä", "\nAä"),
        ] {
            let known = |name: &str| match name {
                "VAR_A" => Some("A".to_owned()),
                "VAR_B" => Some("B".to_owned()),
                "VAR_C" => Some("C".to_owned()),
                "VAR_REF" => Some("$(VAR_A)".to_owned()),
                "VAR_EMPTY" => Some(String::new()),
                _ => None,
            };
            assert_eq!(expand(input, known), expected, "{input:?}");
        }
    }
}
