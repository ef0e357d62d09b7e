-- Orders of one status, newest first. The few that are pending, overdue or being cancelled are looked for among
-- millions that are not, so the lists walk each status by itself. Which statuses rest is the program's to say: a
-- status that is added later needs no other index. Not CONCURRENTLY: it would wait for whoever waits for the lock of
-- the migrations, and that one for it.
CREATE INDEX orders_status ON orders (status, order_id);
