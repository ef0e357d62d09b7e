//! Signing up, and being forgotten.

use ordermill_domain::payments::Payments;
use ordermill_pipeline::database;
use ordermill_pipeline::journal::JournalError;
use ordermill_store::users::{self, SignUp, User};
use ordermill_store::{Decision, Written};

use crate::keys::new_api_key;
use crate::rate_limits::MaySignUp;
use crate::routes::prelude::*;

/// The routes of users.
pub(crate) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(sign_up)).routes(routes!(get_user)).routes(routes!(erase_user))
}

/// Somebody who signs up.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewUser {
    /// The name.
    #[schema(example = "Kim Minji", min_length = 1, max_length = 200)]
    name: String,
    /// The e-mail address. It is kept in lower case: two that differ only in case are one.
    #[schema(example = "minji@example.com", format = Email, max_length = 254)]
    email: String,
}

impl NewUser {
    /// The name, and the address in lower case.
    fn check(self) -> Result<(String, String), Problem> {
        let email = self.email.to_lowercase();
        Checks::all(|checks| {
            checks.text("name", &self.name, &limits::NAME_LENGTH);
            checks.email("email", &email);
        })?;
        Ok((self.name, email))
    }
}

view! {
    /// A user.
    #[schema(as = User)]
    struct UserView from user: User {
        /// The user.
        user_id: Uuid,
        /// The name.
        #[schema(example = "Kim Minji")]
        name: String,
        /// The e-mail address, in lower case.
        #[schema(example = "minji@example.com")]
        email: String,
        /// When the user signed up.
        created_at: Timestamp,
    }
}

/// A user with the key that is shown this once.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SignedUp)]
struct SignedUpView {
    #[serde(flatten)]
    user: UserView,
    /// The user's API key. It is stored nowhere and never shown again.
    #[schema(example = "om_6b1f…")]
    api_key: String,
}

type SignedUp = (StatusCode, [(HeaderName, String); 1], JsonAnswer<SignedUpView>);

/// Sign up
///
/// Opens a balance of 0, too.
#[utoipa::path(
    post,
    path = "/v1/users",
    responses(
        (status = 201, description = "Signed up", body = SignedUpView,
            headers(("Location" = String, description = "The user"))),
        Problems<(Json<NewUser>, code::EmailTaken, code::ValidationFailed)>,
    ),
)]
async fn sign_up(
    State(api): State<Api>,
    _may: MaySignUp,
    context: RequestContext,
    Json { value, .. }: Json<NewUser>,
) -> Result<SignedUp, Problem> {
    let (name, email) = value.check()?;
    let (api_key, key_hash) = new_api_key().map_err(|error| {
        tracing::error!(%error, "no randomness for a key");
        Problem::internal()
    })?;
    let user = User { user_id: Uuid::now_v7(), name, email, created_at: api.journal.now() };
    let user = api.uninterrupted(store(api.clone(), context, user, key_hash)).await?;
    let location = format!("/v1/users/{}", user.user_id);
    let view = SignedUpView { user: user.into(), api_key };
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], JsonAnswer(view)))
}

/// Stores the user, the key and the opened balance, or nothing.
async fn store(api: Api, context: RequestContext, user: User, key_hash: Vec<u8>) -> Result<User, Problem> {
    let user_id = user.user_id;
    let (keys, origin) = (Keys::default(), context.origin(format!("user:{user_id}")));
    let opened = ordermill_store::decide(&api.journal, &keys, |state: &mut Payments| {
        let written = Written::asked_for(state.open(user_id), &origin);
        let sign_up = SignUp { user: user.clone(), key_hash: key_hash.clone() };
        Ok::<_, JournalError>(Decision { written, beside: vec![Box::new(sign_up)], answer: () })
    });
    match opened.await {
        Ok(()) => Ok(user),
        Err(error) if error.is_repeated() => {
            Err(Problem::new(Code::EmailTaken, "another user has this e-mail address"))
        }
        Err(error) => Err(error.into()),
    }
}

/// Show a user
#[utoipa::path(
    get,
    path = "/v1/users/{user_id}",
    responses((status = 200, description = "The user", body = UserView), Problems<(Caller, Id<path::User>)>),
)]
async fn get_user(
    State(api): State<Api>,
    caller: Caller,
    Id(user_id, _): Id<path::User>,
) -> Result<JsonAnswer<UserView>, Problem> {
    caller.acting_for(user_id)?;
    let user = users::find(&api.journal.pool, user_id).await?;
    user.map(|user| JsonAnswer(user.into())).ok_or_else(path::unknown::<path::User>)
}

/// Erase a user
///
/// Name and e-mail address are erased, and so is what was said about the user's orders and coupons: reasons and tracking numbers. All keys are
/// revoked; orders and balance stay under the id. Nobody sees the user again, and the address can sign up anew.
#[utoipa::path(
    delete,
    path = "/v1/users/{user_id}",
    responses((status = 204, description = "Erased"), Problems<(Caller, Id<path::User>)>),
)]
async fn erase_user(
    State(api): State<Api>,
    caller: Caller,
    Id(user_id, _): Id<path::User>,
) -> Result<StatusCode, Problem> {
    caller.acting_for(user_id)?;
    api.uninterrupted(forget(api.clone(), user_id)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Erases the user and revokes the keys, or nothing. It needs no event: neither who a user is nor what people have said stands in any.
async fn forget(api: Api, user_id: Uuid) -> Result<(), Problem> {
    let now = api.journal.now();
    let mut transaction = database::begin(&api.journal.pool).await?;
    let Some(key_hashes) = users::erase(&mut transaction, user_id, now).await? else {
        transaction.rollback().await?;
        return Err(path::unknown::<path::User>());
    };
    transaction.commit().await?;
    api.identities.revoke(key_hashes).await;
    tracing::info!(%user_id, "a user was erased");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_addresses_that_differ_in_case_are_one() {
        let user = NewUser { name: "Kim".to_owned(), email: "Minji@Example.COM".to_owned() };
        assert_eq!(user.check(), Ok(("Kim".to_owned(), "minji@example.com".to_owned())));
    }

    #[test]
    fn name_and_address_are_both_checked() {
        let user = NewUser { name: " ".to_owned(), email: "nobody".to_owned() };
        let problem = format!("{:?}", user.check().unwrap_err());
        assert!(problem.contains("out of range: name, email"), "{problem}");
    }
}
