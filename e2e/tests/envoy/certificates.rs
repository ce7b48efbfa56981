//! Certificates that the cases' files name: below `/run/tls` in each pod.
//!
//! | file | what it is |
//! |---|---|
//! | `root.pem` | the authority's certificate |
//! | `server.pem`, `server.key` | of `a.test`, for listeners |
//! | `other.pem`, `other.key` | of `b.test` |
//! | `client.pem`, `client.key` | of `spiffe://test/client` |
//!
//! The application's own certificate is that of `application.test`.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use weft_sandbox::testing::Failure;

/// What is needed of them.
#[derive(Clone)]
pub(crate) struct Certificates {
    /// Names and contents of the files.
    files: Vec<(String, String)>,
    /// The application's side of TLS.
    pub(crate) upstream_server: Arc<rustls::ServerConfig>,
    /// Those of clients without and with a certificate.
    pub(crate) clients: [Arc<rustls::ClientConfig>; 2],
}

impl Certificates {
    /// Puts the files into a folder.
    pub(crate) fn write(&self, folder: &Path) -> Result<(), Failure> {
        fs::create_dir_all(folder)?;
        for (name, text) in &self.files {
            fs::write(folder.join(name), text)?;
        }
        Ok(())
    }
}

pub(crate) fn make() -> Result<Certificates, Failure> {
    let mut authority = CertificateParams::new(Vec::new())?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.distinguished_name.push(rcgen::DnType::CommonName, "the test's authority");
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
    let mut files = vec![("root.pem".to_owned(), authority.pem())];
    let mut leaf = |file: &str, name: SanType| -> Result<Leaf, Failure> {
        let mut parameters = CertificateParams::new(Vec::new())?;
        parameters.subject_alt_names = vec![name];
        let key = KeyPair::generate()?;
        let certificate = parameters.signed_by(&key, &authority)?;
        files.push((format!("{file}.pem"), certificate.pem()));
        files.push((format!("{file}.key"), key.serialize_pem()));
        let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(|error| Failure::Error(error.to_owned()))?;
        Ok(Leaf { chain: vec![certificate.der().clone()], key })
    };
    leaf("server", SanType::DnsName("a.test".try_into()?))?;
    leaf("other", SanType::DnsName("b.test".try_into()?))?;
    let client = leaf("client", SanType::URI("spiffe://test/client".try_into()?))?;
    let application = leaf("application", SanType::DnsName("application.test".try_into()?))?;

    let mut roots = rustls::RootCertStore::empty();
    roots.add(authority.der().clone())?;
    let mut server =
        rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(application.chain, application.key)?;
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let clients = || rustls::ClientConfig::builder().with_root_certificates(roots.clone());
    let clients = [
        Arc::new(clients().with_no_client_auth()),
        Arc::new(clients().with_client_auth_cert(client.chain, client.key)?),
    ];
    Ok(Certificates { files, upstream_server: Arc::new(server), clients })
}

struct Leaf {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}
