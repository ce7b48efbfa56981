//! A DNS server on loopback whose answers a test decides.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use hickory_resolver::net::runtime::Time;
use hickory_resolver::proto::op::{Header, HeaderCounts, Metadata, ResponseCode};
use hickory_resolver::proto::rr::{RData, Record, RecordType};
use hickory_server::Server;
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::MessageResponseBuilder;
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::watch;

use super::Resolver;

/// What is answered for a name.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    /// These addresses, to be kept so many seconds. Both families may be in it.
    Addresses(Vec<IpAddr>, u32),
    /// SERVFAIL.
    Failure,
    /// Nothing at all.
    Silence,
}

/// A server on a port of its own, over UDP and TCP. Names that it was not told of do not exist.
pub(crate) struct DnsServer {
    address: SocketAddr,
    zone: Zone,
    _server: Server<Zone>,
}

#[derive(Clone, Default)]
struct Zone {
    answers: Arc<Mutex<HashMap<String, Answer>>>,
    asked: Arc<watch::Sender<usize>>,
}

impl DnsServer {
    pub(crate) async fn start() -> Self {
        let (tcp, udp) = loop {
            let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
            // Somebody else may have the port over UDP.
            if let Ok(udp) = UdpSocket::bind(tcp.local_addr().unwrap()).await {
                break (tcp, udp);
            }
        };
        let address = udp.local_addr().unwrap();
        let zone = Zone::default();
        let mut server = Server::new(zone.clone());
        server.register_socket(udp);
        server.register_listener(tcp, Duration::from_secs(60), 16);
        Self { address, zone, _server: server }
    }

    /// Asks this server and no other.
    pub(crate) fn resolver(&self) -> Resolver {
        Resolver::with_servers(vec![self.address])
    }

    /// From now on, the name stands for these addresses.
    pub(crate) fn set(&self, name: &str, addresses: &[&str], ttl: u32) {
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        self.answer(name, Answer::Addresses(addresses, ttl));
    }

    /// From now on, this is said of the name.
    pub(crate) fn answer(&self, name: &str, answer: Answer) {
        self.zone.answers().insert(format!("{name}."), answer);
    }

    /// How many questions have come.
    pub(crate) fn asked(&self) -> usize {
        *self.zone.asked.borrow()
    }

    /// Waits until so many questions have come.
    pub(crate) async fn wait_for_questions(&self, count: usize) {
        self.zone.asked.subscribe().wait_for(|asked| *asked >= count).await.unwrap();
    }
}

impl Zone {
    fn answers(&self) -> std::sync::MutexGuard<'_, HashMap<String, Answer>> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl RequestHandler for Zone {
    async fn handle_request<R: ResponseHandler, T: Time>(&self, request: &Request, mut responses: R) -> ResponseInfo {
        let query = request.request_info().unwrap().query;
        let name = query.name().to_string().to_lowercase();
        let answer = self.answers().get(&name).cloned();
        let (code, records) = match answer {
            Some(Answer::Addresses(addresses, ttl)) => {
                let wanted = |address: &&IpAddr| address.is_ipv4() == (query.query_type() == RecordType::A);
                let owner = query.original().name().clone();
                let record = |address: &IpAddr| Record::from_rdata(owner.clone(), ttl, RData::from(*address));
                (ResponseCode::NoError, addresses.iter().filter(wanted).map(record).collect())
            }
            Some(Answer::Failure) => (ResponseCode::ServFail, Vec::new()),
            None => (ResponseCode::NXDomain, Vec::new()),
            Some(Answer::Silence) => {
                self.asked.send_modify(|asked| *asked += 1);
                let metadata = Metadata::response_from_request(&request.metadata);
                return Header { metadata, counts: HeaderCounts::default() }.into();
            }
        };
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.response_code = code;
        let response = MessageResponseBuilder::from_message_request(request).build(metadata, &records, [], [], []);
        let sent = responses.send_response(response).await.unwrap();
        self.asked.send_modify(|asked| *asked += 1);
        sent
    }
}
