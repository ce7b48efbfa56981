//! `weft-cni init` and `weft-cni validate`, as a pod's init containers run them.

// Clippy knows only tests of the standard harness as tests.
#![allow(clippy::unwrap_used)]

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

use weft_cni::injection::NOT_REDIRECTED;
use weft_cni::redirect::Redirect;
use weft_sandbox::testing::{self, Failure, TestResult, eventually, skip};
use weft_sandbox::{Pod, PodSpec, Process, Sandbox, User};

weft_sandbox::tests! {
    init_redirects_its_own_pod_as_the_injector_says,
    init_takes_single_options_too,
    init_again_changes_nothing,
    init_says_what_is_wrong_with_its_options,
    init_without_the_capability_says_which,
    a_redirected_pod_is_valid_in_both_families,
    a_pod_without_redirection_is_invalid,
    a_pod_redirected_elsewhere_is_invalid,
    a_pod_whose_ipv6_is_not_redirected_is_invalid,
    a_validator_that_is_the_sidecars_user_proves_nothing,
    a_validator_waits_until_the_pod_is_repaired,
    a_sidecar_that_runs_already_answers_for_the_validator,
    exclusions_leave_something_to_prove,
    a_pod_of_which_all_is_excluded_is_valid,
}

const LIMIT: Duration = Duration::from_secs(60);
const PROXY: u32 = 1337;
const VALIDATOR: User = User { uid: 1338, gid: 1338 };

async fn init_redirects_its_own_pod_as_the_injector_says() -> TestResult {
    let (_sandbox, pod) = pod().await?;
    let wanted = Redirect { exclude_outbound_ports: vec![3306], ..by_uid() };
    let (code, text) = run(&pod, &["init", &option(&wanted)], User::ROOT).await?;
    assert_eq!((code, text.as_str()), (0, "redirected: outbound to 15001, inbound to 15006\n"));
    assert!(pod.redirection().await?.unwrap().matches(&wanted));
    Ok(())
}

async fn init_takes_single_options_too() -> TestResult {
    let (_sandbox, pod) = pod().await?;
    let options = [
        "init",
        "--proxy-uid=2000",
        "--proxy-mark=7",
        "--outbound-port=16001",
        "--inbound-port=16006",
        "--skip-inbound-ports=9100,9200",
        "--only-inbound-ports=80",
        "--skip-outbound-ports=3306",
        "--skip-outbound-cidrs=198.18.9.0/24,fd00:198:18:9::/64",
        "--only-outbound-cidrs=198.18.0.0/15",
        "--no-ipv6",
    ];
    let (code, text) = run(&pod, &options, User::ROOT).await?;
    assert_eq!(code, 0, "{text}");
    let wanted = Redirect {
        outbound_port: 16001,
        inbound_port: 16006,
        exclude_mark: Some(7),
        exclude_uid: Some(2000),
        exclude_inbound_ports: vec![15020, 9100, 9200],
        include_inbound_ports: Some(vec![80]),
        exclude_outbound_ports: vec![3306],
        exclude_outbound_cidrs: vec!["198.18.9.0/24".parse()?, "fd00:198:18:9::/64".parse()?],
        include_outbound_cidrs: Some(vec!["198.18.0.0/15".parse()?]),
        ipv4: true,
        ipv6: false,
    };
    assert!(pod.redirection().await?.unwrap().matches(&wanted));
    Ok(())
}

async fn init_again_changes_nothing() -> TestResult {
    let (_sandbox, pod) = pod().await?;
    for _ in 0..2 {
        let (code, text) = run(&pod, &["init", &option(&by_uid())], User::ROOT).await?;
        assert_eq!(code, 0, "{text}");
        assert!(pod.redirection().await?.unwrap().matches(&by_uid()));
    }
    Ok(())
}

async fn init_says_what_is_wrong_with_its_options() -> TestResult {
    let (_sandbox, pod) = pod().await?;
    for (options, complaint) in [
        (&["init", "--redirect={}"][..], "exclude_mark, exclude_uid: none"),
        (&["init", "--redirect=yes"], "annotation weft.mesh/redirect"),
        (&["init", "--inbound-port=15001"], "inbound_port: 15001"),
        (&["init", "--skip-outbound-cidrs=10.0.0.1/8"], "is no network"),
        (&["init", "--skip-outbound-ports=http"], "invalid value 'http'"),
        (&["init", "--no-ipv4", "--no-ipv6"], "nothing would be redirected"),
        (&["init", "--redirect={}", "--no-ipv6"], "cannot be used with"),
        (&["install"], "unrecognized subcommand"),
    ] {
        let (code, text) = run(&pod, options, User::ROOT).await?;
        assert!(code != 0 && text.contains(complaint), "{options:?}: {text}");
    }
    assert_eq!(pod.redirection().await?, None);
    Ok(())
}

async fn init_without_the_capability_says_which() -> TestResult {
    let (_sandbox, pod) = pod_with_users().await?;
    let (code, text) = run(&pod, &["init"], VALIDATOR).await?;
    assert_eq!(code, 1);
    assert!(text.contains("lacks CAP_NET_ADMIN"), "{text}");
    Ok(())
}

async fn a_redirected_pod_is_valid_in_both_families() -> TestResult {
    let (_sandbox, pod) = pod_with_users().await?;
    pod.redirect(&by_uid()).await?;
    let (code, text) = run(&pod, &["validate", &option(&by_uid())], VALIDATOR).await?;
    assert_eq!((code, text.as_str()), (0, "IPv4: redirected to port 15001\nIPv6: redirected to port 15001\n"));
    Ok(())
}

async fn a_pod_without_redirection_is_invalid() -> TestResult {
    let (_sandbox, pod) = pod().await?;
    let (code, text) = run(&pod, &["validate", "--timeout=0"], User::ROOT).await?;
    assert_eq!(code, i32::from(NOT_REDIRECTED));
    assert!(text.starts_with("weft-cni: not redirected: IPv4: a connection to 192.0.2.1:1 was not taken to"), "{text}");
    Ok(())
}

async fn a_pod_redirected_elsewhere_is_invalid() -> TestResult {
    let (_sandbox, pod) = pod().await?;
    pod.redirect(&Redirect { outbound_port: 16001, ..by_uid() }).await?;
    let (code, text) = run(&pod, &["validate", "--timeout=0"], User::ROOT).await?;
    assert_eq!(code, i32::from(NOT_REDIRECTED), "{text}");
    Ok(())
}

async fn a_pod_whose_ipv6_is_not_redirected_is_invalid() -> TestResult {
    let (_sandbox, pod) = pod().await?;
    pod.redirect(&Redirect { ipv6: false, ..by_uid() }).await?;
    let (code, text) = run(&pod, &["validate", "--timeout=0"], User::ROOT).await?;
    assert_eq!(code, i32::from(NOT_REDIRECTED));
    assert!(text.contains("not redirected: IPv6:"), "{text}");
    let (code, text) = run(&pod, &["validate", "--timeout=0", "--no-ipv6"], User::ROOT).await?;
    assert_eq!(code, 0, "{text}");
    Ok(())
}

async fn a_validator_that_is_the_sidecars_user_proves_nothing() -> TestResult {
    let (_sandbox, pod) = pod_with_users().await?;
    pod.redirect(&by_uid()).await?;
    let (code, text) = run(&pod, &["validate", "--timeout=0"], User { uid: PROXY, gid: PROXY }).await?;
    assert_eq!(code, i32::from(NOT_REDIRECTED));
    assert!(text.contains("runs as the sidecar's user"), "{text}");
    Ok(())
}

async fn a_validator_waits_until_the_pod_is_repaired() -> TestResult {
    let (_sandbox, pod) = pod().await?;
    let validator = start(&pod, &["validate", "--timeout=600"], User::ROOT).await?;
    eventually("it has tried in vain", LIMIT, async || validator.log().unwrap().contains("not redirected yet")).await;
    assert_eq!(validator.exit_status(), None);
    pod.redirect(&by_uid()).await?;
    assert!(validator.wait().await.success(), "{}", validator.log()?);
    Ok(())
}

async fn a_sidecar_that_runs_already_answers_for_the_validator() -> TestResult {
    let (_sandbox, pod) = pod().await?;
    let _sidecar = pod
        .run(|| ["127.0.0.1:15001", "[::1]:15001"].map(|address| std::net::TcpListener::bind(address).unwrap()))
        .await?;
    let (code, text) = run(&pod, &["validate", "--timeout=0"], User::ROOT).await?;
    assert_eq!(code, i32::from(NOT_REDIRECTED), "{text}");
    pod.redirect(&by_uid()).await?;
    let (code, text) = run(&pod, &["validate", "--timeout=0"], User::ROOT).await?;
    assert_eq!(code, 0, "{text}");
    Ok(())
}

async fn exclusions_leave_something_to_prove() -> TestResult {
    let (_sandbox, pod) = pod().await?;
    let some = Redirect {
        exclude_outbound_ports: vec![1, 2],
        exclude_outbound_cidrs: vec!["192.0.2.0/24".parse()?, "2001:db8::/32".parse()?],
        ..by_uid()
    };
    pod.redirect(&some).await?;
    let (code, text) = run(&pod, &["validate", "--timeout=0", &option(&some)], User::ROOT).await?;
    assert_eq!(code, 0, "{text}");
    let (code, _) = run(&pod, &["validate", "--timeout=0"], User::ROOT).await?;
    assert_eq!(code, i32::from(NOT_REDIRECTED), "who expects more sees what is excluded");
    Ok(())
}

async fn a_pod_of_which_all_is_excluded_is_valid() -> TestResult {
    let (_sandbox, pod) = pod().await?;
    let nothing = Redirect { include_outbound_cidrs: Some(Vec::new()), ..by_uid() };
    let (code, text) = run(&pod, &["validate", "--timeout=0", &option(&nothing)], User::ROOT).await?;
    assert_eq!(code, 0);
    assert!(text.contains("IPv4: all of it is excluded"), "{text}");
    Ok(())
}

fn by_uid() -> Redirect {
    Redirect { exclude_uid: Some(PROXY), ..Redirect::default() }
}

fn option(redirect: &Redirect) -> String {
    format!("--redirect={}", serde_json::to_string(redirect).unwrap())
}

async fn pod() -> Result<(Sandbox, Pod), Failure> {
    let sandbox = testing::sandbox().await?;
    let pod = sandbox.add_pod(PodSpec::named("web")).await?;
    Ok((sandbox, pod))
}

async fn pod_with_users() -> Result<(Sandbox, Pod), Failure> {
    if weft_sandbox::is_rootless() {
        return Err(skip("a rootless namespace has one user"));
    }
    pod().await
}

async fn start(pod: &Pod, arguments: &[&str], user: User) -> Result<Process, Failure> {
    // Other users may not get to where the program was built, below somebody's home perhaps.
    let folder = tempfile::tempdir()?;
    std::fs::set_permissions(folder.path(), Permissions::from_mode(0o755))?;
    let program = folder.path().join("weft-cni");
    std::fs::copy(env!("CARGO_BIN_EXE_weft-cni"), &program)?;
    let mut command = Command::new(program);
    command.args(arguments);
    // A log of its own for each process.
    let number = std::fs::read_dir(pod.run_dir())?.count();
    std::fs::write(pod.run_dir().join(format!("run-{number}")), "")?;
    Ok(pod.spawn_as(&format!("weft-cni-{number}"), command, user).await?)
}

/// The exit code, and what was written.
async fn run(pod: &Pod, arguments: &[&str], user: User) -> Result<(i32, String), Failure> {
    let process = start(pod, arguments, user).await?;
    let status = process.wait().await;
    Ok((status.code().unwrap(), process.log()?))
}
