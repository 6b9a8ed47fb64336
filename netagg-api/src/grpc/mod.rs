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
use tonic::{Code, Request, Response, Status};

use futures::StreamExt;
use futures::stream::BoxStream;
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};

use netagg_core::access::Principal;

use crate::answers::{Answers, Failure};
use crate::kept::Kept;
use crate::protection::Refusal;
use crate::proto::{
    GetGlobalAggRequest, GetGlobalAggResponse, GetUserAggRequest, GetUserAggResponse, GetUserDetailRequest,
    GetUserDetailResponse, StreamUserDetailResponse,
};

use generated::usage_service_server::UsageService;
use written::Written;

pub use serve::serve_grpc;

/// `telecom.v1.UsageService`.
#[derive(Debug)]
struct Usage {
    answers: Answers,
    /// What everybody asks for alike.
    totals: Kept<GetGlobalAggRequest, Written>,
}

#[tonic::async_trait]
impl UsageService for Usage {
    async fn get_user_detail(
        &self,
        request: Request<GetUserDetailRequest>,
    ) -> Result<Response<GetUserDetailResponse>, Status> {
        timed("GetUserDetail", async {
            let page = self.answers.detail(&*principal(&request)?, request.into_inner().into()).await?;
            Ok(Response::new(page.try_into()?))
        })
        .await
    }

    type StreamUserDetailStream = BoxStream<'static, Result<StreamUserDetailResponse, Status>>;

    async fn stream_user_detail(
        &self,
        request: Request<GetUserDetailRequest>,
    ) -> Result<Response<Self::StreamUserDetailStream>, Status> {
        timed("StreamUserDetail", async {
            let chunks = self.answers.events(&*principal(&request)?, request.into_inner().into()).await?;
            Ok(Response::new(chunks.map(|chunk| chunk?.try_into()).boxed()))
        })
        .await
    }

    async fn get_global_agg(&self, request: Request<GetGlobalAggRequest>) -> Result<Response<Written>, Status> {
        timed("GetGlobalAgg", async {
            let who = principal(&request)?;
            let request = request.into_inner();
            let write = |answer| {
                let answer = Written::new(&GetGlobalAggResponse::try_from(answer)?);
                let bytes = answer.encoded_len();
                Ok::<_, Status>((answer, bytes))
            };
            let parameters = || request.clone().into();
            let answer = self.answers.aggregates(&who, &self.totals, request.clone(), parameters, write).await?;
            Ok(Response::new(answer))
        })
        .await
    }

    async fn get_user_agg(&self, request: Request<GetUserAggRequest>) -> Result<Response<GetUserAggResponse>, Status> {
        timed("GetUserAgg", async {
            let answer = self.answers.user_aggregates(&*principal(&request)?, request.into_inner().into()).await?;
            Ok(Response::new(answer.try_into()?))
        })
        .await
    }
}

/// Who asks, as the guard has found out.
fn principal<T>(request: &Request<T>) -> Result<Arc<Principal>, Status> {
    request.extensions().get().cloned().ok_or_else(|| Status::internal("nobody is known to ask"))
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
        }
    }
}
