//! The plugin's question to the node's agent, over a Unix socket: one line of JSON each way, then the connection ends.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::redirect::Redirect;

/// Where the agent listens, on the node and in its container alike.
pub const SOCKET: &str = "/run/weft-cni/agent.sock";

/// Which pod the plugin asks about.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Question {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub name: String,
    /// The pod's UID, which tells it from an earlier one of the same name; none if the runtime did not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
}

/// What the agent knows about it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// The pod is to be redirected so.
    Redirect(Box<Redirect>),
    /// The pod is none of the mesh's, and why.
    Leave(String),
    /// The agent does not know, or the pod's annotation makes no sense.
    Unknown(String),
}

/// Asks the agent at `socket`. While nobody listens there (it is being replaced), tries again until `patience` is over.
///
/// # Errors
/// If no answer came in time, or one that is none.
pub fn ask(socket: &Path, question: &Question, patience: Duration) -> io::Result<Answer> {
    const PAUSE: Duration = Duration::from_millis(50);
    let deadline = Instant::now() + patience;
    let mut stream = loop {
        match UnixStream::connect(socket) {
            Ok(stream) => break stream,
            Err(error) if Instant::now() + PAUSE >= deadline => return Err(error),
            Err(_) => std::thread::sleep(PAUSE),
        }
    };
    let left = deadline.saturating_duration_since(Instant::now()).max(PAUSE);
    stream.set_read_timeout(Some(left))?;
    stream.set_write_timeout(Some(left))?;
    let mut line = serde_json::to_vec(question)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer)?;
    Ok(serde_json::from_str(&answer)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    fn question() -> Question {
        Question { namespace: "shop".into(), name: "web-1".into(), uid: Some("7".into()) }
    }

    #[test]
    fn the_answer_is_what_the_agent_said_to_the_question() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("agent.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let agent = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut line = String::new();
            BufReader::new(&stream).read_line(&mut line).unwrap();
            stream.write_all(b"{\"leave\":\"not injected\"}\n").unwrap();
            serde_json::from_str::<Question>(&line).unwrap()
        });
        let answer = ask(&socket, &question(), Duration::from_secs(60)).unwrap();
        assert_eq!(answer, Answer::Leave("not injected".into()));
        assert_eq!(agent.join().unwrap(), question());
    }

    #[test]
    fn an_agent_that_is_not_there_or_hangs_up_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("agent.sock");
        assert!(ask(&socket, &question(), Duration::ZERO).is_err());
        let listener = UnixListener::bind(&socket).unwrap();
        let agent = std::thread::spawn(move || drop(listener.accept().unwrap()));
        assert!(ask(&socket, &question(), Duration::from_secs(60)).is_err());
        agent.join().unwrap();
    }
}
