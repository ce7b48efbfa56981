//! As much of an HTTP/1.1 response as load needs to know: whether it has ended, and was good.

use anyhow::{Result, bail};

/// A response while it is received; after its end, the next one.
pub(super) struct Answer {
    buffer: Box<[u8; 4096]>,
    filled: usize,
}

impl Default for Answer {
    fn default() -> Self {
        Self { buffer: Box::new([0; 4096]), filled: 0 }
    }
}

impl Answer {
    /// Where to read more of it.
    pub(super) fn room(&mut self) -> &mut [u8] {
        &mut self.buffer[self.filled..]
    }

    /// So much was read into [`Self::room`].
    pub(super) fn received(&mut self, read: usize) -> Result<()> {
        if read == 0 {
            bail!("the connection ended, or the answer is longer than {} bytes", self.buffer.len());
        }
        self.filled += read;
        Ok(())
    }

    /// Whether it has come to its end. Then there is room for the next one.
    ///
    /// # Errors
    /// Where it is not 200 with a `content-length`, or more bytes came than belong to it.
    pub(super) fn is_whole(&mut self) -> Result<bool> {
        let received = &self.buffer[..self.filled];
        let Some(head) = received.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(false) };
        let text = String::from_utf8_lossy(&received[..head]);
        if !text.starts_with("HTTP/1.1 200") {
            bail!("answered with `{}`", text.lines().next().unwrap_or_default());
        }
        let length = text.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
        });
        let Some(length) = length else { bail!("answered without a content-length: {text}") };
        let end = head + 4 + length;
        if self.filled > end {
            bail!("{} bytes came after the end of an answer", self.filled - end);
        }
        if self.filled < end {
            return Ok(false);
        }
        self.filled = 0;
        Ok(true)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn after(bytes: &[u8]) -> Result<bool> {
        let mut answer = Answer::default();
        answer.room()[..bytes.len()].copy_from_slice(bytes);
        answer.received(bytes.len())?;
        answer.is_whole()
    }

    #[test]
    fn an_answer_ends_with_its_body() {
        let whole = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody";
        for end in 1..whole.len() {
            assert!(!after(&whole[..end]).unwrap(), "after {end} bytes");
        }
        assert!(after(whole).unwrap());
    }

    #[test]
    fn only_what_was_asked_for_is_a_good_answer() {
        let why = |bytes: &[u8]| after(bytes).unwrap_err().to_string();
        assert_eq!(why(b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n"), "answered with `HTTP/1.1 503 No`");
        assert_eq!(why(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nab"), "1 bytes came after the end of an answer");
        assert!(why(b"HTTP/1.1 200 OK\r\n\r\n").starts_with("answered without a content-length"));
        assert!(why(b"").starts_with("the connection ended"));
    }
}
