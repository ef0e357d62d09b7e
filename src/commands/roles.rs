//! `ordermill roles`: the roles of the database, and what each may do in it.

use anyhow::Result;
use clap::Args;
use ordermill_store::database_roles::{self, DatabaseRole, RolesError};

use crate::connections::ConnectionArgs;
use crate::database::{connect_pool, explain};
use crate::output::{note, print};

/// The flags of `ordermill roles`.
#[derive(Args, Clone, Debug)]
pub(crate) struct RolesArgs {
    /// Prints what would be run, for psql, and runs nothing.
    #[arg(long)]
    print: bool,
}

/// Makes the roles and prints their names.
pub(crate) async fn run(connections: &ConnectionArgs, args: &RolesArgs) -> Result<()> {
    if args.print {
        return print(database_roles::script().trim_end());
    }
    let pool = connect_pool(&connections.database_url()?, "roles", 2).await?;
    let operators_see_sessions = database_roles::set_up(&pool).await.map_err(refused)?;
    let names: Vec<String> = DatabaseRole::all().map(|role| role.to_string()).collect();
    print(&names.join("\n"))?;
    note(
        "each may do here what it must; none can log in. Make users of them, like CREATE USER shop_api PASSWORD '...' IN ROLE \
         ordermill_api",
    );
    if !operators_see_sessions {
        note(
            "`ordermill relay status` does not show operators the transactions of others: have a superuser run GRANT \
             pg_read_all_stats TO ordermill_operator",
        );
    }
    Ok(())
}

fn refused(error: RolesError) -> anyhow::Error {
    match error {
        RolesError::Database(error) => explain(error),
        refused => anyhow::Error::new(refused),
    }
}
