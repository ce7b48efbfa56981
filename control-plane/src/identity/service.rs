//! The gRPC service that signs workloads' certificates.

use std::sync::Arc;
use std::time::SystemTime;

use tonic::{Request, Response, Status};
use weft_xds::identity::identity_server::Identity;
use weft_xds::identity::{SignRequest, SignResponse};

use super::{Authenticator, Authority, AuthorityError};
use crate::metrics::Metrics;
use crate::xds::Cache;

/// Signs for callers that proved which pod they are.
#[derive(Clone)]
pub(crate) struct IdentityService {
    pub(crate) authority: Arc<Authority>,
    pub(crate) authenticator: Arc<Authenticator>,
    pub(crate) cache: Arc<Cache>,
    pub(crate) metrics: Arc<Metrics>,
}

#[tonic::async_trait]
impl Identity for IdentityService {
    async fn sign(&self, request: Request<SignRequest>) -> Result<Response<SignResponse>, Status> {
        let result = self.sign_for(&request).await;
        match &result {
            Ok((subject, _)) => tracing::info!(%subject, "certificate issued"),
            Err(status) => tracing::warn!(code = ?status.code(), "certificate refused: {}", status.message()),
        }
        self.metrics.certificate(result.is_ok());
        result.map(|(_, response)| Response::new(response))
    }
}

impl IdentityService {
    async fn sign_for(&self, request: &Request<SignRequest>) -> Result<(String, SignResponse), Status> {
        let caller = self.authenticator.caller(request.extensions(), request.metadata(), &self.cache).await?;
        let subject = caller
            .principal
            .subject(self.authority.trust_domain())
            .map_err(|error| Status::failed_precondition(error.to_string()))?;
        let signed =
            self.authority.sign(&request.get_ref().csr_der, &subject, SystemTime::now()).map_err(
                |error| match error {
                    AuthorityError::Request(_) => Status::invalid_argument(error.to_string()),
                    error => Status::internal(error.to_string()),
                },
            )?;
        let bundle = self.authority.trust().borrow().bundle.clone();
        let response = SignResponse {
            chain_der: vec![signed.leaf.to_vec()],
            bundle_der: bundle.iter().map(|root| root.to_vec()).collect(),
            not_before: i64::try_from(signed.not_before).unwrap_or(i64::MAX),
            not_after: i64::try_from(signed.not_after).unwrap_or(i64::MAX),
        };
        Ok((format!("{} {}", subject.id, subject.pod), response))
    }
}
