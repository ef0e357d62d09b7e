//! Every route by every kind of caller, on a real database. The routes are those that the router itself names: one that
//! `table.rs` does not list fails here until it says to whom it answers.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod shop;
mod table;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;
use shop::{Answer, Caller, Shop};
use table::{Access, ROUTES, Route};

/// Methods that a client may think of.
const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"];

/// What a caller is to be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    /// What those get to whom the route answers.
    LetIn(u16),
    /// A problem of this status and code.
    Refused(u16, &'static str),
}

impl Expected {
    fn of(route: &Route, caller: Caller) -> Expected {
        let let_in = Expected::LetIn(route.status);
        let has_key = matches!(caller, Caller::Stranger | Caller::Owner | Caller::Admin);
        match route.access {
            Access::Public => let_in,
            Access::Gateway if caller == Caller::Gateway => let_in,
            Access::Gateway => Expected::Refused(401, "INVALID_SIGNATURE"),
            _ if !has_key => Expected::Refused(401, "UNAUTHENTICATED"),
            _ if caller == Caller::Admin => let_in,
            Access::AnyKey => let_in,
            Access::Admins | Access::Operators => Expected::Refused(403, "FORBIDDEN"),
            Access::Owner(_) if caller == Caller::Owner => let_in,
            Access::Owner(code) => Expected::Refused(404, code),
        }
    }

    fn fits(self, answer: &Answer) -> bool {
        match self {
            Expected::LetIn(status) => answer.status == status,
            Expected::Refused(status, code) => {
                let asks_for_a_key = answer.header("www-authenticate") == Some("Bearer");
                answer.status == status
                    && answer.code().as_deref() == Some(code)
                    && asks_for_a_key == (code == "UNAUTHENTICATED")
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_of_the_router_is_in_the_table_and_no_other() {
    let shop = Shop::open().await;
    let listed: BTreeSet<String> = ROUTES.iter().map(Route::name).collect();
    assert_eq!(listed.len(), ROUTES.len(), "a route stands in the table twice");
    let routes = shop.routes().await;
    let unlisted: Vec<_> = routes.difference(&listed).collect();
    assert!(unlisted.is_empty(), "say in table.rs to whom these routes answer: {unlisted:#?}");
    let gone: Vec<_> = listed.difference(&routes).collect();
    assert!(gone.is_empty(), "the router has no such routes: {gone:#?}");
    shop.close();
}

#[test]
fn the_document_asks_for_a_key_where_the_table_does() {
    let document = serde_json::to_value(ordermill_api::openapi()).unwrap();
    for route in ROUTES {
        let method = route.method.to_lowercase();
        let operation = &document["paths"][route.path][method.as_str()];
        let needs_key = matches!(route.access, Access::AnyKey | Access::Owner(_) | Access::Admins);
        let may_do_without = operation["security"].as_array().is_none_or(|any| any.contains(&json!({})));
        assert_eq!(!may_do_without, needs_key, "{}", route.name());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_answers_each_kind_of_caller_as_the_table_says() {
    let shop = Shop::open().await;
    let mut wrong = Vec::new();
    for route in ROUTES {
        for caller in Caller::ALL {
            let things = shop.things_for(route).await;
            let answer = shop.ask(caller, route.method, route, &things).await;
            let expected = Expected::of(route, caller);
            if !expected.fits(&answer) {
                let shown = String::from_utf8_lossy(&answer.body);
                wrong.push(format!(
                    "{} {caller:?}: {expected:?}, got {} {shown}",
                    route.name(),
                    answer.status
                ));
                continue;
            }
            if let (Access::Owner(_), Caller::Stranger) = (route.access, caller) {
                let of_nobody = shop.ask(caller, route.method, route, &things.of_nobody()).await;
                if answer.without_its_request() != of_nobody.without_its_request() {
                    wrong.push(format!("{} tells a stranger what there is: {answer:?}", route.name()));
                }
            }
            if route.method == "GET" {
                let head = shop.ask(caller, "HEAD", route, &things).await;
                if head.status != answer.status || !head.body.is_empty() {
                    wrong.push(format!("HEAD {} {caller:?}: {head:?}", route.path));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    shop.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_method_that_a_path_does_not_take_is_refused_whoever_asks() {
    let shop = Shop::open().await;
    let mut taken: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for route in ROUTES {
        let methods = taken.entry(route.path).or_default();
        methods.insert(route.method);
        if route.method == "GET" {
            methods.insert("HEAD");
        }
    }
    for route in ROUTES {
        // Once for each path.
        let Some(taken) = taken.remove(route.path) else { continue };
        let things = shop.things_for(route).await;
        for method in METHODS.into_iter().filter(|method| !taken.contains(method)) {
            for caller in [Caller::Nobody, Caller::Owner, Caller::Admin] {
                let answer = shop.ask(caller, method, route, &things).await;
                let what = format!("{method} {} {caller:?}: {answer:?}", route.path);
                assert_eq!(answer.status, 405, "{what}");
                // An answer to HEAD has no body.
                let code = (method != "HEAD").then_some("METHOD_NOT_ALLOWED");
                assert_eq!(answer.code().as_deref(), code, "{what}");
                let allowed: BTreeSet<&str> = answer.header("allow").unwrap_or_default().split(',').collect();
                assert_eq!(allowed, taken, "{what}");
            }
        }
    }
    shop.close();
}
