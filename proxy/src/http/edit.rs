//! What routes may change about a head.

use weft_rules::mutation::HeaderEdit;

use super::Fields;

impl HeaderEdit for Fields {
    fn contains(&self, name: &str) -> bool {
        Self::contains(self, name)
    }

    fn remove(&mut self, name: &str) {
        Self::remove(self, name);
    }

    fn append(&mut self, name: &str, value: &[u8]) {
        // A value that no head can hold (it came from a request by substitution) is left out.
        Self::append(self, name.as_bytes(), value);
    }
}
