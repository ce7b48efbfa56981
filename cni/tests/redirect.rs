//! The redirection as the kernel does it: pods, real TCP connections, and what the sidecar learns about their destination.

// Clippy knows only tests of the standard harness as tests.
#![allow(clippy::unwrap_used)]

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use weft_cni::redirect::{self, Cidr, Error, Redirect};
use weft_sandbox::testing::{self, Failure, TestResult, skip};
use weft_sandbox::{Pod, PodSpec, Sandbox};

weft_sandbox::tests! {
    outbound_connections_arrive_at_the_sidecar_with_their_original_destination,
    inbound_connections_arrive_at_the_sidecar_with_their_original_destination,
    connections_with_the_sidecars_mark_go_where_they_want,
    connections_of_the_sidecars_user_go_where_they_want,
    excluded_outbound_ports_and_networks_are_reached_directly,
    only_included_networks_are_redirected,
    excluded_inbound_ports_are_reached_directly,
    only_included_inbound_ports_are_redirected,
    a_pod_that_calls_itself_is_not_redirected,
    the_sidecars_delivery_to_the_application_is_not_redirected_again,
    one_family_can_be_left_alone,
    other_protocols_are_untouched,
    an_existing_connection_survives_installation_and_removal,
    a_redirected_connection_survives_new_rules,
    installing_again_replaces_the_rules,
    removing_twice_is_no_error_and_leaves_no_table,
    a_refused_batch_changes_nothing,
    hundreds_of_rules_fit_into_one_batch,
    without_the_capability_the_error_says_which,
}

const LIMIT: Duration = Duration::from_secs(10);
const MARK: u32 = 0x5745;
const SIDECAR_UID: u32 = 1337;

async fn outbound_connections_arrive_at_the_sidecar_with_their_original_destination() -> TestResult {
    let mesh = Mesh::start().await?;
    mesh.client.redirect(&by_mark()).await?;
    // Nobody has the addresses: a service's virtual address only exists in the rules.
    for destination in ["198.19.4.5:8080", "[fd00:198:18:1::45]:8080"] {
        let destination = destination.parse()?;
        let seen = sidecar(&mesh.client, loopback(destination), 15001).await?;
        let caller = call(&mesh.client, destination, Socketed::Plain).await??;
        let seen = seen.join().unwrap()?;
        assert_eq!(seen.original_destination, destination);
        assert_eq!(caller, "sidecar");
    }
    for address in mesh.server.addresses().both() {
        let destination = SocketAddr::new(address, 80);
        let seen = sidecar(&mesh.client, loopback(destination), 15001).await?;
        assert_eq!(call(&mesh.client, destination, Socketed::Plain).await??, "sidecar");
        assert_eq!(seen.join().unwrap()?.original_destination, destination);
    }
    Ok(())
}

async fn inbound_connections_arrive_at_the_sidecar_with_their_original_destination() -> TestResult {
    let mesh = Mesh::start().await?;
    mesh.server.redirect(&by_mark()).await?;
    for (address, caller) in mesh.server.addresses().both().into_iter().zip(mesh.client.addresses().both()) {
        let destination = SocketAddr::new(address, 8080);
        let seen = sidecar(&mesh.server, address, 15006).await?;
        assert_eq!(call(&mesh.client, destination, Socketed::Plain).await??, "sidecar");
        let seen = seen.join().unwrap()?;
        assert_eq!(seen.original_destination, destination);
        assert_eq!(seen.peer.ip(), caller, "the caller's address is kept");
    }
    // The host is a caller like any other.
    let destination = SocketAddr::new(mesh.server.v4(), 80);
    let seen = sidecar(&mesh.server, mesh.server.v4(), 15006).await?;
    assert_eq!(read_all(TcpStream::connect_timeout(&destination, LIMIT)?)?, "sidecar");
    assert_eq!(seen.join().unwrap()?.original_destination, destination);
    Ok(())
}

async fn connections_with_the_sidecars_mark_go_where_they_want() -> TestResult {
    let mesh = Mesh::start().await?;
    mesh.client.redirect(&by_mark()).await?;
    for address in mesh.server.addresses().both() {
        let destination = SocketAddr::new(address, 80);
        serve(&mesh.server, destination).await?;
        assert_eq!(call(&mesh.client, destination, Socketed::Marked(MARK)).await??, "application");
        let refused = call(&mesh.client, destination, Socketed::Marked(MARK + 1)).await?.unwrap_err();
        assert_eq!(
            refused.kind(),
            ErrorKind::ConnectionRefused,
            "another mark is redirected to a sidecar that is not there"
        );
    }
    Ok(())
}

async fn connections_of_the_sidecars_user_go_where_they_want() -> TestResult {
    if weft_sandbox::is_rootless() {
        return Err(skip("a rootless namespace has one user"));
    }
    let mesh = Mesh::start().await?;
    mesh.client.redirect(&by_uid()).await?;
    for address in mesh.server.addresses().both() {
        let destination = SocketAddr::new(address, 80);
        serve(&mesh.server, destination).await?;
        assert_eq!(call(&mesh.client, destination, Socketed::OfUser(SIDECAR_UID)).await??, "application");
        let refused = call(&mesh.client, destination, Socketed::OfUser(SIDECAR_UID + 1)).await?.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    }
    Ok(())
}

async fn excluded_outbound_ports_and_networks_are_reached_directly() -> TestResult {
    let mesh = Mesh::start().await?;
    let other = mesh.sandbox.add_pod(PodSpec::named("other")).await?;
    let networks = other.addresses().both().map(|address| address.to_string().parse::<Cidr>());
    let networks = networks.into_iter().collect::<Result<Vec<_>, _>>()?;
    let rules = Redirect { exclude_outbound_ports: vec![3306, 5432], exclude_outbound_cidrs: networks, ..by_mark() };
    mesh.client.redirect(&rules).await?;
    for port in [3306, 5432] {
        for address in mesh.server.addresses().both() {
            assert_reached(&mesh.client, &mesh.server, SocketAddr::new(address, port)).await?;
        }
    }
    for address in other.addresses().both() {
        assert_reached(&mesh.client, &other, SocketAddr::new(address, 80)).await?;
    }
    for address in mesh.server.addresses().both() {
        assert_redirected(&mesh.client, SocketAddr::new(address, 80)).await?;
    }
    Ok(())
}

async fn only_included_networks_are_redirected() -> TestResult {
    let mesh = Mesh::start().await?;
    let virtual_range = vec!["198.19.0.0/16".parse()?, "fd00:198:18:1::/64".parse()?];
    mesh.client.redirect(&Redirect { include_outbound_cidrs: Some(virtual_range), ..by_mark() }).await?;
    for address in mesh.server.addresses().both() {
        assert_reached(&mesh.client, &mesh.server, SocketAddr::new(address, 80)).await?;
    }
    assert_redirected(&mesh.client, "198.19.255.255:80".parse()?).await?;
    assert_redirected(&mesh.client, "[fd00:198:18:1:ffff::]:80".parse()?).await?;
    mesh.client.redirect(&Redirect { include_outbound_cidrs: Some(Vec::new()), ..by_mark() }).await?;
    let unreachable = call(&mesh.client, "198.19.1.1:80".parse()?, Socketed::Plain).await?.unwrap_err();
    assert_ne!(unreachable.kind(), ErrorKind::ConnectionRefused, "an empty list redirects nothing");
    Ok(())
}

async fn excluded_inbound_ports_are_reached_directly() -> TestResult {
    let mesh = Mesh::start().await?;
    mesh.server.redirect(&Redirect { exclude_inbound_ports: vec![15020, 9100], ..by_mark() }).await?;
    for address in mesh.server.addresses().both() {
        assert_reached(&mesh.client, &mesh.server, SocketAddr::new(address, 15020)).await?;
        assert_reached(&mesh.client, &mesh.server, SocketAddr::new(address, 9100)).await?;
        let refused = call(&mesh.client, SocketAddr::new(address, 80), Socketed::Plain).await?.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    }
    Ok(())
}

async fn only_included_inbound_ports_are_redirected() -> TestResult {
    let mesh = Mesh::start().await?;
    mesh.server.redirect(&Redirect { include_inbound_ports: Some(vec![8080]), ..by_mark() }).await?;
    for address in mesh.server.addresses().both() {
        assert_reached(&mesh.client, &mesh.server, SocketAddr::new(address, 80)).await?;
        let seen = sidecar(&mesh.server, address, 15006).await?;
        assert_eq!(call(&mesh.client, SocketAddr::new(address, 8080), Socketed::Plain).await??, "sidecar");
        seen.join().unwrap()?;
    }
    Ok(())
}

async fn a_pod_that_calls_itself_is_not_redirected() -> TestResult {
    let mesh = Mesh::start().await?;
    mesh.client.redirect(&by_mark()).await?;
    let loopback = ["127.0.0.1".parse()?, "127.0.0.9".parse()?, "::1".parse()?];
    for address in mesh.client.addresses().both().into_iter().chain(loopback) {
        assert_reached(&mesh.client, &mesh.client, SocketAddr::new(address, 80)).await?;
    }
    Ok(())
}

async fn the_sidecars_delivery_to_the_application_is_not_redirected_again() -> TestResult {
    let mesh = Mesh::start().await?;
    mesh.server.redirect(&by_mark()).await?;
    for address in mesh.server.addresses().both() {
        let application = SocketAddr::new(address, 8080);
        serve(&mesh.server, application).await?;
        // As the inbound side does: to the original address, from inside the pod, marked.
        assert_eq!(call(&mesh.server, application, Socketed::Marked(MARK)).await??, "application");
    }
    Ok(())
}

async fn one_family_can_be_left_alone() -> TestResult {
    let mesh = Mesh::start().await?;
    let (v4, v6) = (SocketAddr::new(mesh.server.v4(), 80), SocketAddr::new(mesh.server.v6(), 80));
    mesh.client.redirect(&Redirect { ipv6: false, ..by_mark() }).await?;
    assert_redirected(&mesh.client, v4).await?;
    assert_reached(&mesh.client, &mesh.server, v6).await?;
    mesh.client.redirect(&Redirect { ipv4: false, ..by_mark() }).await?;
    assert_reached(&mesh.client, &mesh.server, v4).await?;
    assert_redirected(&mesh.client, v6).await?;
    Ok(())
}

async fn other_protocols_are_untouched() -> TestResult {
    let mesh = Mesh::start().await?;
    mesh.client.redirect(&by_mark()).await?;
    mesh.server.redirect(&by_mark()).await?;
    for address in mesh.server.addresses().both() {
        let server = mesh.server.run(move || UdpSocket::bind((address, 53))).await??;
        server.set_read_timeout(Some(LIMIT))?;
        let client = mesh.client.addresses().both().into_iter().find(|own| own.is_ipv4() == address.is_ipv4()).unwrap();
        mesh.client.run(move || UdpSocket::bind((client, 0))?.send_to(b"who?", (address, 53))).await??;
        let mut buffer = [0; 16];
        let (length, from) = server.recv_from(&mut buffer)?;
        assert_eq!((&buffer[..length], from.ip()), (&b"who?"[..], client));
    }
    Ok(())
}

async fn an_existing_connection_survives_installation_and_removal() -> TestResult {
    let mesh = Mesh::start().await?;
    let address = SocketAddr::new(mesh.server.v4(), 80);
    let listener = mesh.server.run(move || TcpListener::bind(address)).await??;
    let mut client = mesh.client.run(move || TcpStream::connect_timeout(&address, LIMIT)).await??;
    let (mut server, _) = listener.accept()?;
    client.set_read_timeout(Some(LIMIT))?;
    server.set_read_timeout(Some(LIMIT))?;
    let mut exchange = |word: &str| -> std::io::Result<()> {
        let mut buffer = vec![0; word.len()];
        client.write_all(word.as_bytes())?;
        server.read_exact(&mut buffer)?;
        assert_eq!(buffer, word.as_bytes());
        server.write_all(word.as_bytes())?;
        client.read_exact(&mut buffer)
    };
    exchange("before")?;
    for pod in [&mesh.client, &mesh.server] {
        pod.redirect(&by_mark()).await?;
    }
    exchange("with rules")?;
    for pod in [&mesh.client, &mesh.server] {
        pod.redirect(&Redirect { exclude_outbound_ports: vec![1], ..by_mark() }).await?;
    }
    exchange("with other rules")?;
    for pod in [&mesh.client, &mesh.server] {
        pod.remove_redirect().await?;
    }
    exchange("after")?;
    Ok(())
}

async fn a_redirected_connection_survives_new_rules() -> TestResult {
    let mesh = Mesh::start().await?;
    mesh.client.redirect(&by_mark()).await?;
    let sidecar = mesh.client.run(|| TcpListener::bind("[::1]:15001")).await??;
    let destination = SocketAddr::new(mesh.server.v6(), 80);
    let mut client = mesh.client.run(move || TcpStream::connect_timeout(&destination, LIMIT)).await??;
    let (mut sidecar, _) = sidecar.accept()?;
    client.set_read_timeout(Some(LIMIT))?;
    sidecar.set_read_timeout(Some(LIMIT))?;
    for rules in [by_mark(), Redirect { exclude_outbound_ports: vec![80], ..by_mark() }] {
        mesh.client.redirect(&rules).await?;
        let mut buffer = [0; 4];
        client.write_all(b"ping")?;
        sidecar.read_exact(&mut buffer)?;
        sidecar.write_all(b"pong")?;
        client.read_exact(&mut buffer)?;
        assert_eq!(&buffer, b"pong");
    }
    Ok(())
}

async fn installing_again_replaces_the_rules() -> TestResult {
    let mesh = Mesh::start().await?;
    let first = Redirect { exclude_outbound_ports: vec![1, 2, 3], ..by_mark() };
    mesh.client.redirect(&first).await?;
    mesh.client.redirect(&first).await?;
    let installed = mesh.client.redirection().await?.unwrap();
    assert!(installed.matches(&first) && !installed.matches(&by_mark()));
    let second = Redirect { outbound_port: 16001, ..by_mark() };
    mesh.client.redirect(&second).await?;
    assert!(mesh.client.redirection().await?.unwrap().matches(&second));
    let destination: SocketAddr = "198.19.1.1:2".parse()?;
    let seen = sidecar(&mesh.client, loopback(destination), 16001).await?;
    assert_eq!(call(&mesh.client, destination, Socketed::Plain).await??, "sidecar");
    assert_eq!(seen.join().unwrap()?.original_destination, destination);
    let installed = mesh.client.redirection().await?.unwrap();
    let counts = installed.rules.iter().map(|rule| (rule.text.as_str(), rule.connections)).collect::<Vec<_>>();
    assert!(counts.contains(&("redirect to :16001", 1)), "each rule counts its connections: {counts:?}");
    Ok(())
}

async fn removing_twice_is_no_error_and_leaves_no_table() -> TestResult {
    let mesh = Mesh::start().await?;
    mesh.client.remove_redirect().await?;
    mesh.client.redirect(&by_mark()).await?;
    mesh.client.remove_redirect().await?;
    assert_eq!(mesh.client.redirection().await?, None);
    mesh.client.remove_redirect().await?;
    assert_reached(&mesh.client, &mesh.server, SocketAddr::new(mesh.server.v4(), 80)).await?;
    Ok(())
}

async fn a_refused_batch_changes_nothing() -> TestResult {
    let mesh = Mesh::start().await?;
    mesh.client.redirect(&by_mark()).await?;
    let error = mesh.client.redirect(&Redirect { exclude_mark: None, ..by_mark() }).await.unwrap_err();
    assert!(error.to_string().contains("pod client: exclude_mark, exclude_uid: none"), "{error}");
    assert!(mesh.client.redirection().await?.unwrap().matches(&by_mark()));
    Ok(())
}

async fn hundreds_of_rules_fit_into_one_batch() -> TestResult {
    let mesh = Mesh::start().await?;
    let networks = (0..400).map(|n| format!("fd00:198:18:{n:x}::/64").parse::<Cidr>()).collect::<Result<_, _>>()?;
    let rules = Redirect { exclude_outbound_ports: (1..=400).collect(), exclude_outbound_cidrs: networks, ..by_mark() };
    mesh.client.redirect(&rules).await?;
    assert!(mesh.client.redirection().await?.unwrap().matches(&rules));
    assert_redirected(&mesh.client, "198.19.1.1:401".parse()?).await?;
    Ok(())
}

async fn without_the_capability_the_error_says_which() -> TestResult {
    if weft_sandbox::is_rootless() {
        return Err(skip("a rootless namespace has one user"));
    }
    let mesh = Mesh::start().await?;
    let attempt = || {
        become_user(SIDECAR_UID)?;
        Ok::<_, std::io::Error>((redirect::install(&by_mark()), redirect::remove()))
    };
    let (install, remove) = mesh.client.run(attempt).await??;
    for (error, action) in [(install.unwrap_err(), "install"), (remove.unwrap_err(), "remove")] {
        assert!(matches!(&error, Error::Permission { .. }), "{error}");
        assert!(error.to_string().starts_with(&format!("cannot {action} the redirection")), "{error}");
        assert!(error.to_string().contains("lacks CAP_NET_ADMIN"), "{error}");
    }
    Ok(())
}

/// Two pods.
struct Mesh {
    sandbox: Sandbox,
    client: Pod,
    server: Pod,
}

impl Mesh {
    async fn start() -> Result<Self, Failure> {
        let sandbox = testing::sandbox().await?;
        let client = sandbox.add_pod(PodSpec::named("client")).await?;
        let server = sandbox.add_pod(PodSpec::named("server")).await?;
        Ok(Self { sandbox, client, server })
    }
}

fn by_mark() -> Redirect {
    Redirect { exclude_mark: Some(MARK), ..Redirect::default() }
}

fn by_uid() -> Redirect {
    Redirect { exclude_uid: Some(SIDECAR_UID), ..Redirect::default() }
}

fn loopback(like: SocketAddr) -> IpAddr {
    if like.is_ipv4() { [127, 0, 0, 1].into() } else { std::net::Ipv6Addr::LOCALHOST.into() }
}

/// What the sidecar learns about a connection.
struct Seen {
    original_destination: SocketAddr,
    peer: SocketAddr,
}

/// Accepts one connection as the sidecar does and answers "sidecar"; listening when this returns.
async fn sidecar(
    pod: &Pod,
    address: IpAddr,
    port: u16,
) -> Result<std::thread::JoinHandle<std::io::Result<Seen>>, Failure> {
    let listener = pod.run(move || TcpListener::bind((address, port))).await??;
    Ok(std::thread::spawn(move || {
        let (mut stream, peer) = listener.accept()?;
        let socket = socket2::SockRef::from(&stream);
        let original = if peer.is_ipv4() { socket.original_dst_v4()? } else { socket.original_dst_v6()? };
        stream.write_all(b"sidecar")?;
        Ok(Seen { original_destination: original.as_socket().unwrap(), peer })
    }))
}

/// Answers connections as an application does, until the test ends; listening when this returns.
async fn serve(pod: &Pod, address: SocketAddr) -> TestResult {
    let listener = pod.run(move || TcpListener::bind(address)).await??;
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            // A caller that has left does not want the answer.
            let _ = stream.and_then(|mut stream| stream.write_all(b"application"));
        }
    });
    Ok(())
}

/// Whose socket calls.
#[derive(Clone, Copy)]
enum Socketed {
    Plain,
    Marked(u32),
    OfUser(u32),
}

/// Connects from inside the pod: what was answered, or why there was no connection.
async fn call(
    pod: &Pod,
    destination: SocketAddr,
    socketed: Socketed,
) -> Result<std::io::Result<String>, weft_sandbox::Error> {
    pod.run(move || {
        if let Socketed::OfUser(uid) = socketed {
            become_user(uid)?;
        }
        let socket = Socket::new(Domain::for_address(destination), Type::STREAM, None)?;
        if let Socketed::Marked(mark) = socketed {
            socket.set_mark(mark)?;
        }
        socket.connect_timeout(&destination.into(), LIMIT)?;
        read_all(socket.into())
    })
    .await
}

fn read_all(mut stream: TcpStream) -> std::io::Result<String> {
    let mut text = String::new();
    stream.set_read_timeout(Some(LIMIT))?;
    stream.read_to_string(&mut text)?;
    Ok(text)
}

/// Makes the calling thread, and no other, a user without capabilities: the system call, where the C library's function would change all
/// threads.
#[allow(unsafe_code)]
fn become_user(uid: u32) -> std::io::Result<()> {
    // SAFETY: the call takes numbers only; the thread ends after the test's work on it, so no code expects its old credentials.
    let answer = unsafe { nix::libc::syscall(nix::libc::SYS_setresuid, uid, uid, uid) };
    if answer == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

async fn assert_reached(from: &Pod, to: &Pod, destination: SocketAddr) -> TestResult {
    serve(to, destination).await?;
    assert_eq!(call(from, destination, Socketed::Plain).await??, "application", "{destination} is reached directly");
    Ok(())
}

async fn assert_redirected(from: &Pod, destination: SocketAddr) -> TestResult {
    let seen = sidecar(from, loopback(destination), 15001).await?;
    assert_eq!(call(from, destination, Socketed::Plain).await??, "sidecar", "{destination} is redirected");
    assert_eq!(seen.join().unwrap()?.original_destination, destination);
    Ok(())
}
