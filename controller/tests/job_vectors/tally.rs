//! Counts how many vectors of each area pass.

use std::path::Path;

use serde_json::Value;

/// What has become of the vectors so far.
#[derive(Default)]
pub(crate) struct Tally {
    passed: usize,
    pub(crate) failures: Vec<String>,
}

impl Tally {
    /// Checks the vectors of a file, and returns a line that says how many of them pass.
    #[must_use]
    pub(crate) fn check(
        &mut self,
        area: &str,
        text: &str,
        check: impl Fn(&Value) -> Result<(), String>,
    ) -> String {
        let cases: Vec<Value> = serde_json::from_str(text).unwrap();
        let failed_before = self.failures.len();
        for case in &cases {
            if let Err(why) = check(case) {
                self.failures.push(format!("{}\n{why}", case["name"]));
            }
        }
        let failed = self.failures.len() - failed_before;
        let passed = cases.len() - failed;
        self.passed += passed;
        format!("{area}: {passed} passed, {failed} failed")
    }

    /// Fails if any vector failed, or none was found in the directory.
    pub(crate) fn conclude(self, directory: &Path) {
        assert!(self.failures.is_empty(), "{}", self.failures.join("\n\n"));
        assert!(self.passed > 0, "no vector in {}", directory.display());
    }
}
