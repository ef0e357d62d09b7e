//! Signing up.

use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Answer, ask, charges, new_email, post_as};
use crate::support::{ADMIN_KEY, Shop, User, id, in_open_shop, order_of};

async fn sign_up(shop: &Shop, user: Value) -> Answer {
    ask(shop.request_as_nobody(Method::POST, "/v1/users").json(&user)).await
}

#[test]
fn who_signs_up_gets_a_key_once_and_a_balance_of_0() {
    in_open_shop(async |shop| {
        let email = new_email();
        let answer = sign_up(shop, json!({"name": "김민지", "email": email})).await;
        let user = answer.with(201);
        let user_id = user["user_id"].as_str().unwrap();
        assert_eq!(user_id.parse::<Uuid>().unwrap().get_version_num(), 7);
        assert_eq!(answer.header("location"), Some(format!("/v1/users/{user_id}").as_str()));
        assert_eq!((&user["name"], &user["email"]), (&json!("김민지"), &json!(email)));
        assert!(user["created_at"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok());
        let key = user["api_key"].as_str().unwrap();
        assert!(key.len() >= 32, "a key that can't be guessed");
        let path = format!("/users/{user_id}");
        let shown = ask(shop.request_as(key, Method::GET, &path)).await.with(200);
        let mut expected = user.clone();
        expected.as_object_mut().unwrap().remove("api_key");
        assert_eq!(shown, expected, "as it was, without the key");
        let balance = ask(shop.request_as(key, Method::GET, &format!("{path}/balance"))).await.with(200);
        assert_eq!((&balance["available"], &balance["held"]), (&json!(0), &json!(0)));
        assert_eq!((&balance["user_id"], &balance["currency"]), (&user["user_id"], &json!("KRW")));
        let stored = format!("SELECT count(*) FROM api_keys a WHERE a::text LIKE '%{key}%'");
        assert_eq!(shop.count(&stored).await, 0, "only the key's hash is stored");
    });
}

#[test]
fn an_email_address_signs_up_once_in_whatever_case() {
    in_open_shop(async |shop| {
        let email = new_email();
        sign_up(shop, json!({"name": "Kim", "email": email})).await.with(201);
        for again in [email.clone(), email.to_uppercase(), email.replace("example", "Example")] {
            let answer = sign_up(shop, json!({"name": "Lee", "email": again})).await;
            answer.refused(409, "EMAIL_TAKEN");
        }
        let stored = format!("SELECT count(*) FROM users WHERE lower(email) = '{email}'");
        assert_eq!(shop.count(&stored).await, 1);
    });
}

#[test]
fn of_twenty_who_sign_up_with_one_address_at_once_one_does() {
    in_open_shop(async |shop| {
        let email = new_email();
        let mut answers = tokio::task::JoinSet::new();
        for _ in 0..20 {
            let user = json!({"name": "Kim", "email": email});
            answers.spawn(ask(shop.request_as_nobody(Method::POST, "/v1/users").json(&user)));
        }
        let mut created = 0;
        for answer in answers.join_all().await {
            if answer.status == 201 {
                created += 1;
            } else {
                answer.refused(409, "EMAIL_TAKEN");
            }
        }
        assert_eq!(created, 1);
    });
}

#[test]
fn a_name_and_an_address_that_are_none_are_both_named() {
    in_open_shop(async |shop| {
        sign_up(shop, json!({"name": "", "email": "nobody"})).await.refused_for(&["name", "email"]);
        sign_up(shop, json!({"name": "K\u{0}m", "email": new_email()})).await.refused_for(&["name"]);
        sign_up(shop, json!({"name": "K".repeat(201), "email": new_email()})).await.refused_for(&["name"]);
        sign_up(shop, json!({"name": "Kim", "email": "a\u{0}@example.com"})).await.refused_for(&["email"]);
    });
}

#[test]
fn a_sign_up_with_a_member_too_many_or_too_few_is_no_sign_up() {
    in_open_shop(async |shop| {
        let with_scope = json!({"name": "Kim", "email": new_email(), "scope": "admin"});
        sign_up(shop, with_scope).await.refused(400, "INVALID_JSON");
        sign_up(shop, json!({"name": "Kim"})).await.refused(400, "INVALID_JSON");
        sign_up(shop, json!({"name": 5, "email": new_email()})).await.refused(400, "INVALID_JSON");
    });
}

fn erase(shop: &Shop, key: &str, user_id: Uuid) -> impl Future<Output = Answer> + use<> {
    ask(shop.request_as(key, Method::DELETE, &format!("/users/{user_id}")))
}

#[test]
fn who_is_erased_is_not_there_any_more_and_what_was_done_stays() {
    in_open_shop(async |shop| {
        let email = new_email();
        let user = sign_up(shop, json!({"name": "Kim", "email": email})).await.with(201);
        let user = User { id: id(&user["user_id"]), key: user["api_key"].as_str().unwrap().to_owned() };
        let charge = ask(post_as(shop, ADMIN_KEY, &charges(&user), r#"{"amount": 500}"#)).await;
        charge.with(201);
        let lamp = shop.product(100, 5).await;
        let order = shop.order(&user, &[(lamp, 1)]).await;
        let answer = erase(shop, &user.key, user.id).await;
        assert_eq!((answer.status, &*answer.body), (204, ""));
        let path = format!("/users/{}", user.id);
        ask(shop.request_as(&user.key, Method::GET, &path)).await.refused(401, "UNAUTHENTICATED");
        for path in [
            path.clone(),
            format!("{path}/balance"),
            format!("{path}/balance/entries"),
            format!("{path}/orders"),
        ] {
            ask(shop.request(Method::GET, &path)).await.refused(404, "USER_NOT_FOUND");
        }
        let charge = ask(post_as(shop, ADMIN_KEY, &charges(&user), r#"{"amount": 500}"#)).await;
        charge.refused(404, "USER_NOT_FOUND");
        let body = order_of(&user, &[(lamp, 1)]).to_string();
        ask(post_as(shop, ADMIN_KEY, "/orders", body)).await.refused(404, "USER_NOT_FOUND");
        erase(shop, ADMIN_KEY, user.id).await.refused(404, "USER_NOT_FOUND");
        let shown = shop.get(&format!("/orders/{}", order["order_id"].as_str().unwrap())).await;
        assert_eq!(shown, order, "the order stays");
        let kept = format!(
            "SELECT count(*) FROM users JOIN balances ON balances.key = user_id
             WHERE user_id = '{}' AND name IS NULL AND email IS NULL AND available = 400",
            user.id
        );
        assert_eq!(shop.count(&kept).await, 1);
        let again = sign_up(shop, json!({"name": "Kim", "email": email})).await.with(201);
        assert_ne!(again["user_id"], json!(user.id));
    });
}

#[test]
fn a_user_is_erased_by_themselves_or_an_administrator_and_by_nobody_else() {
    in_open_shop(async |shop| {
        let (user, other) = (shop.user(0).await, shop.user(0).await);
        erase(shop, &other.key, user.id).await.refused(404, "USER_NOT_FOUND");
        erase(shop, ADMIN_KEY, Uuid::now_v7()).await.refused(404, "USER_NOT_FOUND");
        let path = format!("/users/{}", user.id);
        ask(shop.request_as(&user.key, Method::GET, &path)).await.with(200);
        assert_eq!(erase(shop, ADMIN_KEY, user.id).await.status, 204);
        ask(shop.request_as(&user.key, Method::GET, &path)).await.refused(401, "UNAUTHENTICATED");
    });
}

#[test]
fn of_ten_who_erase_a_user_at_once_one_does_and_no_key_gets_in_afterwards() {
    in_open_shop(async |shop| {
        let user = shop.user(0).await;
        let path = format!("/users/{}", user.id);
        let mut answers = tokio::task::JoinSet::new();
        for _ in 0..10 {
            answers.spawn(erase(shop, ADMIN_KEY, user.id));
            // Others remember the key meanwhile.
            answers.spawn(ask(shop.request_as(&user.key, Method::GET, &path)));
        }
        let answers = answers.join_all().await;
        assert_eq!(answers.iter().filter(|answer| answer.status == 204).count(), 1);
        ask(shop.request_as(&user.key, Method::GET, &path)).await.refused(401, "UNAUTHENTICATED");
    });
}
