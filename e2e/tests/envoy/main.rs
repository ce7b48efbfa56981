//! The same start-up file, run by a genuine Envoy and by weft-proxy, and asked the same requests: what users of Envoy know must come back.
//!
//! `cases/NAME.yaml` is the file, `cases/NAME.http` are the requests (see [`case`]). Each program runs in a pod of its own, next to an
//! application that answers what it received (see [`application`]): so headers that a proxy adds, takes away or changes are compared in both
//! directions. Answers must be equal but for what [`answer`] lists, and but for what a request is marked with.
// Clippy knows only tests of the standard harness as tests.
#![allow(clippy::unwrap_used)]

mod answer;
mod application;
mod case;
mod certificates;
mod program;
mod talk;

use std::fmt::Write;

use weft_sandbox::testing::{self, Failure, TestResult};

use answer::Answer;
use case::Case;
use program::{Program, Running};

weft_sandbox::tests! {
    the_same_file_answers_as_envoy_does,
    a_file_with_another_answer_is_told_from_it,
}

async fn the_same_file_answers_as_envoy_does() -> TestResult {
    let programs = Pair::start().await?;
    let mut cases = Case::all()?;
    assert!(cases.len() >= 25, "{} cases", cases.len());
    if let Ok(only) = std::env::var("WEFT_ENVOY_CASE") {
        cases.retain(|case| case.name == only);
        assert!(!cases.is_empty(), "WEFT_ENVOY_CASE={only} names no case");
    }
    let mut wrong = String::new();
    for case in &cases {
        let (envoy, weft) = match programs.answers(&case.bootstrap, case).await {
            Ok(answers) => answers,
            Err(Failure::Error(error)) => {
                let _ = writeln!(wrong, "{}: {error}", case.name);
                continue;
            }
            Err(skip) => return Err(skip),
        };
        for ((request, envoy), weft) in case.requests.iter().zip(envoy).zip(weft) {
            let same = envoy.is_like(&weft, case);
            let verdict = match (&request.differs, same) {
                (None, true) | (Some(_), false) => continue,
                (None, false) => "is answered otherwise",
                (Some(_), true) => "is said to be answered otherwise, and is not",
            };
            let _ = writeln!(wrong, "{}: {} {verdict}\n  Envoy: {envoy}\n  Weft:  {weft}", case.name, request.title);
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(Failure::Error(wrong)) }
}

/// Counter-proof: that the two agree is no property of the comparison.
async fn a_file_with_another_answer_is_told_from_it() -> TestResult {
    let programs = Pair::start().await?;
    let case = Case::read("direct_response")?;
    let other = case.bootstrap.replace("short and stout", "tall and thin");
    assert_ne!(other, case.bootstrap);
    let (envoy, _) = programs.answers(&case.bootstrap, &case).await?;
    let (_, weft) = programs.answers(&other, &case).await?;
    let differing = envoy.iter().zip(&weft).filter(|(envoy, weft)| !envoy.is_like(weft, &case)).count();
    assert_eq!(differing, 2, "two of its requests are answered with that text");
    Ok(())
}

/// Both programs, each where it can be started.
struct Pair {
    envoy: Program,
    weft: Program,
}

impl Pair {
    async fn start() -> Result<Self, Failure> {
        let envoy = program::find_envoy()?;
        let sandbox = std::sync::Arc::new(testing::sandbox().await?);
        let certificates = certificates::make()?;
        let envoy = Program::new(sandbox.clone(), "envoy", envoy, &certificates).await?;
        let weft = Program::new(sandbox, "weft", program::find_weft()?, &certificates).await?;
        Ok(Self { envoy, weft })
    }

    /// What each program answers to the requests of a case, when started with this file.
    async fn answers(&self, bootstrap: &str, case: &Case) -> Result<(Vec<Answer>, Vec<Answer>), Failure> {
        let ask = async |program: &Program| {
            let running = program.run(bootstrap, case).await?;
            let answers = Self::ask(&running, case).await;
            running.stop().await;
            answers
        };
        // Both to their ends, so that neither goes on running.
        let (envoy, weft) = tokio::join!(ask(&self.envoy), ask(&self.weft));
        Ok((envoy?, weft?))
    }

    async fn ask(running: &Running<'_>, case: &Case) -> Result<Vec<Answer>, Failure> {
        let mut answers = Vec::new();
        for request in &case.requests {
            let answer = talk::ask(running.pod(), running.certificates(), request).await;
            let failed =
                |error| Failure::Error(format!("{}: {}: {}: {error:?}", case.name, request.title, running.name()));
            answers.push(answer.map_err(failed)?);
        }
        Ok(answers)
    }
}
