//! gRPC over the usage service.

mod messages;
mod serve;

use tonic::{Request, Response, Status};

use crate::answers::{Answers, Failure};
use crate::proto::usage_service_server::UsageService;
use crate::proto::{GetGlobalAggRequest, GetGlobalAggResponse, GetUserDetailRequest, GetUserDetailResponse};

pub use serve::serve_grpc;

/// `telecom.v1.UsageService`.
#[derive(Debug)]
struct Usage(Answers);

#[tonic::async_trait]
impl UsageService for Usage {
    async fn get_user_detail(
        &self,
        request: Request<GetUserDetailRequest>,
    ) -> Result<Response<GetUserDetailResponse>, Status> {
        let page = self.0.detail(request.into_inner().into()).await?;
        Ok(Response::new(page.try_into()?))
    }

    async fn get_global_agg(
        &self,
        request: Request<GetGlobalAggRequest>,
    ) -> Result<Response<GetGlobalAggResponse>, Status> {
        let answer = self.0.aggregates(request.into_inner().into()).await?;
        Ok(Response::new(answer.try_into()?))
    }
}

impl From<Failure> for Status {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Invalid(query) => Self::invalid_argument(query.to_string()),
            Failure::Unavailable => Self::unavailable("this cannot be answered now; please ask again later"),
            Failure::Internal => Self::internal("this cannot be answered; the log of the server says why"),
        }
    }
}
