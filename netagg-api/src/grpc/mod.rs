//! gRPC over the usage service.

mod messages;
mod serve;
mod written;

/// The server, generated like [`crate::proto`].
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

use crate::answers::{Answers, Failure, STREAM_BYTES, overloaded};
use crate::auth::Refusal;
use crate::client::Client;
use crate::proto::{
    GetGlobalAggRequest, GetGlobalAggResponse, GetUserAggRequest, GetUserAggResponse, GetUserDetailRequest,
    GetUserDetailResponse, StreamUserDetailResponse,
};
use crate::response_cache::ResponseCache;

use generated::usage_service_server::UsageService;
use written::Written;

/// `telecom.v1.UsageService`.
#[derive(Debug)]
struct Usage {
    answers: Answers,
    /// What everybody asks for alike.
    totals: ResponseCache<GetGlobalAggRequest, Written>,
}

#[tonic::async_trait]
impl UsageService for Usage {
    async fn get_user_detail(
        &self,
        request: Request<GetUserDetailRequest>,
    ) -> Result<Response<GetUserDetailResponse>, Status> {
        timed("GetUserDetail", async {
            let (_, asked, request) = request.into_parts();
            let page = self.answers.detail(&*principal(&asked)?, request.into()).await?;
            let page = GetUserDetailResponse::try_from(page)?;
            respond(&asked, page.encoded_len(), page)
        })
        .await
    }

    type StreamUserDetailStream = BoxStream<'static, Result<StreamUserDetailResponse, Status>>;

    async fn stream_user_detail(
        &self,
        request: Request<GetUserDetailRequest>,
    ) -> Result<Response<Self::StreamUserDetailStream>, Status> {
        timed("StreamUserDetail", async {
            let (_, asked, request) = request.into_parts();
            let chunks = self.answers.events(&*principal(&asked)?, request.into()).await?;
            respond(&asked, STREAM_BYTES, chunks.map(|chunk| chunk?.try_into()).boxed())
        })
        .await
    }

    async fn get_global_agg(&self, request: Request<GetGlobalAggRequest>) -> Result<Response<Written>, Status> {
        timed("GetGlobalAgg", async {
            let (_, asked, request) = request.into_parts();
            let who = principal(&asked)?;
            let write = |answer| {
                let answer = Written::new(&GetGlobalAggResponse::try_from(answer)?);
                let bytes = answer.encoded_len();
                Ok::<_, Status>((answer, bytes))
            };
            let parameters = || request.clone().into();
            let answer = self.answers.aggregates(&who, &self.totals, request.clone(), parameters, write).await?;
            respond(&asked, answer.encoded_len(), answer)
        })
        .await
    }

    async fn get_user_agg(&self, request: Request<GetUserAggRequest>) -> Result<Response<GetUserAggResponse>, Status> {
        timed("GetUserAgg", async {
            let (_, asked, request) = request.into_parts();
            let answer = self.answers.user_aggregates(&*principal(&asked)?, request.into()).await?;
            let answer = GetUserAggResponse::try_from(answer)?;
            respond(&asked, answer.encoded_len(), answer)
        })
        .await
    }
}

/// Who asks, as the guard has found out.
fn principal(asked: &Extensions) -> Result<Arc<Principal>, Status> {
    asked.get().cloned().ok_or_else(|| Status::internal("nobody is known to ask"))
}

/// `answer` if there is room for its `bytes` until the client has taken them.
fn respond<T>(asked: &Extensions, bytes: usize, answer: T) -> Result<Response<T>, Status> {
    let mut response = Response::new(answer);
    if let Some(Client { room, .. }) = asked.get() {
        response.extensions_mut().insert(room.take(bytes).ok_or_else(overloaded)?);
    }
    Ok(response)
}

/// Notes how long the answer took.
async fn timed<T>(method: &'static str, answer: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    let begun = Instant::now();
    let answer = answer.await;
    let code = answer.as_ref().map_or_else(Status::code, |_| Code::Ok);
    metrics::histogram!("netagg_grpc_request_seconds", "method" => method, "code" => format!("{code:?}"))
        .record(begun.elapsed());
    answer
}

impl From<Failure> for Status {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Invalid(query) => {
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
            Failure::Forbidden(forbidden) => Self::permission_denied(forbidden.to_string()),
            Failure::Overloaded => Self::unavailable("too much is asked at the moment; please ask again later"),
            Failure::Unavailable => Self::unavailable("this cannot be answered now; please ask again later"),
            Failure::Internal => Self::internal("this cannot be answered; the log of the server says why"),
        }
    }
}

impl From<&Refusal> for Status {
    fn from(refusal: &Refusal) -> Self {
        match refusal {
            Refusal::NoCredentials | Refusal::BadCredentials(_) => Self::unauthenticated(refusal.detail()),
            Refusal::TooMany(_, wait) => {
                let details = ErrorDetails::with_retry_info(Some(*wait));
                Self::with_error_details(Code::ResourceExhausted, refusal.detail(), details)
            }
            Refusal::Unavailable => Self::unavailable(refusal.detail()),
            Refusal::UnknownPeer => Self::internal(refusal.detail()),
        }
    }
}
