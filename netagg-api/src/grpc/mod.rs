//! The gRPC API over the usage service.

mod messages;
mod raw_response;
mod serve;
mod trace;

/// The server code, generated like [`crate::proto`].
#[allow(missing_docs, unreachable_pub, clippy::doc_markdown, reason = "generated code")]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/server/telecom.v1.rs"));
}

use std::sync::Arc;
use std::time::Instant;

use prost::Message as _;
use tonic::{Code, Extensions, Request, Response, Status};

use futures::StreamExt;
use futures::stream::BoxStream;
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};

use crate::auth::Principal;

use crate::auth::Rejection;
use crate::client::Client;
use crate::handlers::{HandlerError, Handlers, STREAM_BYTES, overloaded};
use crate::proto::{
    GetGlobalAggRequest, GetGlobalAggResponse, GetUserAggRequest, GetUserAggResponse, GetUserDetailRequest,
    GetUserDetailResponse, StreamUserDetailResponse,
};
use crate::response_cache::ResponseCache;

use generated::usage_service_server::UsageService;
use raw_response::RawResponse;

/// `telecom.v1.UsageService`.
#[derive(Debug)]
struct Usage {
    handlers: Handlers,
    /// The totals of all users, cached by request.
    totals: ResponseCache<GetGlobalAggRequest, RawResponse>,
}

#[tonic::async_trait]
impl UsageService for Usage {
    async fn get_user_detail(
        &self,
        request: Request<GetUserDetailRequest>,
    ) -> Result<Response<GetUserDetailResponse>, Status> {
        record_metrics("GetUserDetail", async {
            let (_, extensions, request) = request.into_parts();
            let page = self.handlers.detail(&*principal(&extensions)?, request.into()).await?;
            let page = GetUserDetailResponse::try_from(page)?;
            respond(&extensions, page.encoded_len(), page)
        })
        .await
    }

    type StreamUserDetailStream = BoxStream<'static, Result<StreamUserDetailResponse, Status>>;

    async fn stream_user_detail(
        &self,
        request: Request<GetUserDetailRequest>,
    ) -> Result<Response<Self::StreamUserDetailStream>, Status> {
        record_metrics("StreamUserDetail", async {
            let (_, extensions, request) = request.into_parts();
            let chunks = self.handlers.events(&*principal(&extensions)?, request.into()).await?;
            respond(&extensions, STREAM_BYTES, chunks.map(|chunk| chunk?.try_into()).boxed())
        })
        .await
    }

    async fn get_global_agg(&self, request: Request<GetGlobalAggRequest>) -> Result<Response<RawResponse>, Status> {
        record_metrics("GetGlobalAgg", async {
            let (_, extensions, request) = request.into_parts();
            let caller = principal(&extensions)?;
            let encode = |answer| {
                let response = RawResponse::new(&GetGlobalAggResponse::try_from(answer)?);
                let bytes = response.encoded_len();
                Ok::<_, Status>((response, bytes))
            };
            let parameters = || request.clone().into();
            let response = self.handlers.aggregates(&caller, &self.totals, request.clone(), parameters, encode).await?;
            respond(&extensions, response.encoded_len(), response)
        })
        .await
    }

    async fn get_user_agg(&self, request: Request<GetUserAggRequest>) -> Result<Response<GetUserAggResponse>, Status> {
        record_metrics("GetUserAgg", async {
            let (_, extensions, request) = request.into_parts();
            let answer = self.handlers.user_aggregates(&*principal(&extensions)?, request.into()).await?;
            let response = GetUserAggResponse::try_from(answer)?;
            respond(&extensions, response.encoded_len(), response)
        })
        .await
    }
}

/// Returns the principal that the guard layer added to the extensions.
fn principal(extensions: &Extensions) -> Result<Arc<Principal>, Status> {
    extensions.get().cloned().ok_or_else(|| Status::internal("the request has no principal"))
}

/// Returns `message` as the response, with a permit for its `bytes` until the client has taken them. Rejects the request as
/// overloaded if the budget has no permit.
fn respond<T>(extensions: &Extensions, bytes: usize, message: T) -> Result<Response<T>, Status> {
    let mut response = Response::new(message);
    if let Some(Client { budget, .. }) = extensions.get() {
        response.extensions_mut().insert(budget.take(bytes).ok_or_else(overloaded)?);
    }
    Ok(response)
}

/// Records the duration of a request in the metrics.
async fn record_metrics<T>(method: &'static str, call: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    let started = Instant::now();
    let result = call.await;
    let code = result.as_ref().map_or_else(Status::code, |_| Code::Ok);
    metrics::histogram!("netagg_grpc_request_duration_seconds", "method" => method, "code" => format!("{code:?}"))
        .record(started.elapsed());
    result
}

impl From<HandlerError> for Status {
    fn from(failure: HandlerError) -> Self {
        match failure {
            HandlerError::Invalid(query) => {
                let message = query.to_string();
                let violations = query.problems.into_iter().map(|problem| {
                    FieldViolation::new(
                        problem.name,
                        format!("found {}; accepted: {}", problem.found, problem.accepted),
                    )
                });
                let details = ErrorDetails::with_bad_request(violations.collect::<Vec<_>>());
                Self::with_error_details(Code::InvalidArgument, message, details)
            }
            HandlerError::Forbidden(forbidden) => Self::permission_denied(forbidden.to_string()),
            HandlerError::Overloaded => Self::unavailable("the server is overloaded; please retry later"),
            HandlerError::Unavailable => Self::unavailable("the request cannot be answered now; please retry later"),
            HandlerError::Internal => Self::internal("the request failed; the log of the server has the reason"),
        }
    }
}

impl From<&Rejection> for Status {
    fn from(rejection: &Rejection) -> Self {
        match rejection {
            Rejection::NoCredentials | Rejection::BadCredentials(_) => Self::unauthenticated(rejection.detail()),
            Rejection::TooMany(_, wait) => {
                let details = ErrorDetails::with_retry_info(Some(*wait));
                Self::with_error_details(Code::ResourceExhausted, rejection.detail(), details)
            }
            Rejection::Unavailable => Self::unavailable(rejection.detail()),
            Rejection::UnknownPeer => Self::internal(rejection.detail()),
        }
    }
}
