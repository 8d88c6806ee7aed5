"A gallery on a server: nothing acknowledged is lost, no password is told, a lost connection is made again."
import importlib.util
import os
import socket
import threading
import traceback
from pathlib import Path

import numpy as np
import pytest

from facerec_nb.core.files import InputError
from facerec_nb.core.gallery_threshold import mean_reference
from facerec_nb.pipeline import shared_gallery
from facerec_nb.pipeline.gallery import Gallery

ROOT = Path(__file__).resolve().parents[2]


def some(n, dim=64, seed=0):
    x = np.random.default_rng(seed).standard_normal((n, dim))
    return (x/np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def scale():
    spec = importlib.util.spec_from_file_location("bench_scale", ROOT/"benchmarks/scale.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def of(database, what, *values):
    import psycopg

    with psycopg.connect(database, autocommit=True) as db: db.execute(what, values or None)


def of_one(database, what):
    import psycopg

    with psycopg.connect(database) as db: return db.execute(what).fetchone()[0]


def cut(server, database):
    "End all connections to a database"
    name = database.split("@/")[1].split("?")[0]
    with server.connect() as db:
        db.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname=%s", (name,))


def test_a_killed_server_loses_nothing_acknowledged(scale):
    got = scale.server_kills(3, seed=2, longest=0.5, fsync="off")
    assert got["kills"] == 3 and got["acknowledged"] > 0
    assert (got["lost"], got["half_written"]) == (0, 0), got


def test_a_lost_connection_is_made_again_once(server, database):
    with Gallery(database, model="m") as g:
        g.add("a", some(1))
        for f in (lambda: g.search(some(1))[0][0].name, lambda: list(g.people())[0]):
            cut(server, database)
            assert f() == "a"
        cut(server, database)
        assert g.add("b", some(1, seed=1)) == 1 and g.people() == {"a": 1, "b": 1}


def test_a_connection_lost_in_the_middle_changes_nothing(server, database):
    with Gallery(database, model="m") as g:
        g.add("a", some(1))
        with pytest.raises(InputError, match="cannot be used"), g._change() as db:
            db.execute("DELETE FROM people")
            cut(server, database)
            db.execute("SELECT 1")
        assert g.people() == {"a": 1}


@pytest.mark.parametrize("confirmed", [True, False])
def test_a_connection_lost_at_the_end_is_looked_up(server, database, monkeypatch, confirmed):
    "The server confirmed and the answer was lost, or it was lost before: the caller is told the truth"
    def losing(line):
        if line.number and confirmed: line.now.execute("COMMIT")
        cut(server, database)
        return commit(line)

    with Gallery(database, model="m") as g:
        g.add("a", some(1))
        line = type(g._store._db)
        commit = line.commit
        monkeypatch.setattr(line, "commit", losing)
        if confirmed: assert g.add("b", some(1, seed=1)) == 1
        else:
            with pytest.raises(InputError, match="cannot be used"): g.add("b", some(1, seed=1))
        monkeypatch.undo()
        assert ("b" in g.people()) == confirmed


def test_a_server_that_is_away_is_one_sentence_without_the_password(server):
    address = server.address("away", "t0psecret").replace(str(server.folder), str(server.folder/"none"))
    for a in (address, server.address("absent", "t0psecret"), "postgresql://u:t0psecret@localhost:1/x",
              "postgresql://u:t0psecret@[::bad/x", "postgresql://u:t0psecret@/x?nonsense=1"):
        with pytest.raises(InputError) as e: Gallery(a, model="m")
        told = "".join(traceback.format_exception(e.value))
        assert "t0psecret" not in told and "\n" not in str(e.value) and len(str(e.value)) < 600


@pytest.fixture(scope="module")
def guarded():
    "The port of a server that asks for a password and speaks no TLS"
    from studies.postgres import Server
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    with Server(fsync="off", listen_addresses="127.0.0.1", port=port) as server:
        with server.connect() as db: db.execute("CREATE ROLE guard LOGIN SUPERUSER PASSWORD 't0psecret'")
        rules = "local all all trust\nhost all guard 127.0.0.1/32 scram-sha-256\n"
        (server.folder/"data/pg_hba.conf").write_text(rules)
        with server.connect() as db: db.execute("SELECT pg_reload_conf()")
        yield port


@pytest.mark.parametrize("user,password,end,said", [
    ("guard", "wr0ngsecret", "postgres", "check the address, user and password"),
    ("nobody", "wr0ngsecret", "postgres", "check the address, user"),
    ("guard", "t0psecret", "nowhere", 'database "nowhere" does not exist'),
    ("guard", "t0psecret", "postgres?sslmode=require", "server does not support SSL")])
def test_who_is_not_let_in_is_told_without_the_password(guarded, caplog, user, password, end, said):
    caplog.set_level(0)
    address = f"postgresql://{user}:{password}@127.0.0.1:{guarded}/{end}"
    with pytest.raises(InputError, match=said) as e: Gallery(address, "m")
    told = "".join(traceback.format_exception(e.value)) + caplog.text
    assert password not in told and "\n" not in str(e.value)


def test_the_right_password_is_let_in(guarded):
    with Gallery(f"postgresql://guard:t0psecret@127.0.0.1:{guarded}/postgres", model="m") as g:
        g.add("a", some(1))
        assert g.people() == {"a": 1} and "t0psecret" not in repr(g) + g.path


def test_the_password_is_nowhere_to_be_read(server, database, caplog):
    caplog.set_level(0)
    with Gallery(server.address(database.split("@/")[1].split("?")[0], "t0psecret"), model="m") as g:
        g.add("a", some(1))
        held = [g, g.path, g._store, g._store._db, g._store._db.now, g._store._db.now._made]
        assert "t0psecret" not in " ".join(map(repr, held)) + g._repr_html_()
        with pytest.raises(InputError) as e: g.add("a", some(1, 32))
        assert "t0psecret" not in str(e.value) + caplog.text and "facerec@" in g.path


def test_a_reader_without_rights_can_ask(server, database):
    with Gallery(database, model="m") as g: g.add("a", some(1))
    of(database, "CREATE ROLE reader LOGIN")
    of(database, "GRANT USAGE ON SCHEMA facerec TO reader")
    of(database, "GRANT SELECT ON ALL TABLES IN SCHEMA facerec TO reader")
    with Gallery(database.replace("facerec@", "reader@")) as g:
        assert g.read_only and g.search(some(1))[0][0].name == "a"
        with pytest.raises(InputError, match="its owner must give this user the right"): g.add("b", some(1))
    with Gallery(database) as g: assert not g.read_only


def test_tables_of_an_older_version_are_brought_up_to_date(database, monkeypatch):
    newer = [*shared_gallery.MIGRATIONS, ("ALTER TABLE refs ADD COLUMN more text NOT NULL DEFAULT 'x'",)]
    with Gallery(database, model="m") as g: g.add("a", some(1))
    monkeypatch.setattr(shared_gallery, "MIGRATIONS", newer)
    with Gallery(database) as g: assert g._rows("SELECT more FROM refs") == [("x",)]
    monkeypatch.undo()
    older = f"is a gallery of version {len(newer)}, this version of facerec_nb reads up to {len(newer) - 1}"
    with pytest.raises(InputError, match=older): Gallery(database)


def test_a_gallery_of_the_first_version_is_brought_up_to_date_by_many_at_once(database, monkeypatch):
    monkeypatch.setattr(shared_gallery, "MIGRATIONS", shared_gallery.MIGRATIONS[:1])
    with Gallery(database, model="m") as g: g.add_many((f"p{i}", some(3, seed=i), "abc") for i in range(20))
    monkeypatch.undo()
    with Gallery(model="m") as file:
        file.add_many((f"p{i}", some(3, seed=i), "abc") for i in range(20))
        want, wrong = file.search(some(1, seed=7), 10)[0], []

    def ask():
        try:
            with Gallery(database) as g: assert g.search(some(1, seed=7), 10)[0][0].name == want[0].name == "p7"
        except BaseException as e: wrong.append(e)

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for t in threads: t.start()
    for t in threads: t.join()
    assert not wrong, wrong
    with Gallery(database) as g: right_means(g)


def right_means(g):
    "Every person has the mean of the references that are there"
    rows, held = dict(g._rows("SELECT name, mean FROM people")), {}
    for name, e in g._rows("SELECT name, embedding FROM refs JOIN people ON people.id=person"):
        held.setdefault(name, []).append(e.to_numpy())
    assert rows.keys() == held.keys()
    for name, refs in held.items():
        assert np.allclose(rows[name].to_numpy(), mean_reference(np.stack(refs)), atol=1e-5), name


def test_means_follow_whatever_happens_to_references(database):
    rng = np.random.default_rng(4)
    with Gallery(database, model="m") as g:
        g.add_many((f"p{i}", some(3, seed=i), "abc") for i in range(12))
        g.add("p0", some(1, seed=50), "late", instead=[h.id for h in g.held() if h.person == "p0"][:2])
        g.merge("p1", "p2")
        g.remove("p3")
        g.drop(rng.choice([h.id for h in g.held()], 9, replace=False))
        g.rename(next(iter(g.people())), "somebody else")
        right_means(g)
        of(database, "UPDATE facerec.refs SET added='2020-01-01T00:00:00Z' WHERE id%3=0")
        g.keep_for("1y")
        right_means(g)


def test_a_mean_is_of_all_who_added_at_once(database):
    Gallery(database, model="m").close()

    def enrol(seed):
        with Gallery(database, model="m") as g:
            order = (1, 2, 3)[::1 - 2*(seed % 2)]
            for i in range(15): g.add_many([(f"p{n}", some(1, seed=99*seed + i), "x") for n in order])

    threads = [threading.Thread(target=enrol, args=(s,)) for s in range(4)]
    for t in threads: t.start()
    for t in threads: t.join()
    with Gallery(database) as g:
        assert set(g.people().values()) == {60}
        right_means(g)


def test_old_references_are_in_no_answer_of_a_gallery_for_reading(database):
    "Who may not remove what is too old does not answer with it either"
    with Gallery(database, model="m") as g:
        g.add_many((f"p{i}", some(2, seed=i), list("ab")) for i in range(40))
        g.keep_for("1y")
        of(database, "UPDATE facerec.refs SET added='2020-01-01T00:00:00Z' "
                     "WHERE source='b' OR person IN (SELECT id FROM facerec.people WHERE name='p7')")
        answer = g.search(some(2, seed=7)[0], 30)[0]
        assert "p7" not in [m.name for m in answer] and {m.source for m in answer} == {"a"} and len(answer) == 30
        of(database, "UPDATE facerec.refs SET added='2020-01-01T00:00:00Z' WHERE person%10<>1")
        assert len(g.search(some(2, seed=7)[0], 3)[0]) == 3


def test_somebody_who_may_only_add_can_enrol(database):
    with Gallery(database, model="m") as g: g.add("a", some(1))
    of(database, "CREATE ROLE adder LOGIN")
    of(database, "GRANT USAGE ON SCHEMA facerec TO adder")
    of(database, "GRANT SELECT ON ALL TABLES IN SCHEMA facerec TO adder")
    of(database, "GRANT INSERT ON facerec.people, facerec.refs TO adder")
    with Gallery(database.replace("facerec@", "adder@")) as g:
        assert g.add("b", some(2, seed=3)) == 2 and g.search(some(2, seed=3)[0])[0][0].name == "b"
        with pytest.raises(InputError, match="its owner must give this user the right"): g.remove("a")
        right_means(g)


def test_settings_that_a_pooler_lost_are_one_sentence(database):
    with Gallery(database, model="m") as g:
        g.add("a", some(1))
        for line in (g._store._reader, g._store._db): line.now.execute("SET search_path = public")
        for f in (lambda: g.search(some(1)), lambda: g.add("b", some(1))):
            with pytest.raises(InputError, match="pool_mode = session"): f()


def test_a_large_gallery_that_moves_in_is_indexed_once(database, monkeypatch):
    built = []
    with Gallery(database, model="m", exact=20) as g:
        make = g._store._make_index
        monkeypatch.setattr(type(g._store), "_make_index", lambda store, dim: built.append(dim) or make(dim))
        with g.filling():
            for b in range(4):
                g.add_many((f"p{b} {i}", some(1, seed=100*b + i), "a") for i in range(20))
                assert not built
        assert built == [64] and g.search(some(1, seed=205))[0][0].name == "p2 5"
        with pytest.raises(KeyError), g.filling(): {}["nobody"]


@pytest.mark.parametrize("how", ["save", "import"])
def test_a_gallery_that_moves_to_a_server_is_indexed_there(database, tmp_path, monkeypatch, how):
    monkeypatch.setattr(shared_gallery, "EXACT", 1200)
    with Gallery(model="m") as file:
        file.add_many((f"p{i}", some(1, 16, seed=i), f"{i}.jpg") for i in range(1500))
        if how == "save": file.save(database)
        else:
            with Gallery(database, model="m") as g: assert g.import_file(file.export(tmp_path/"people.zip")) == 1500
    with Gallery(database) as g:
        assert g._store._is_indexed(g._store._db) and g.size == (1500, 1500)
        assert g.sources("p77") == {"77.jpg"}
        assert g.search(some(1, 16, seed=77))[0][0].name == "p77"


def test_another_programs_tables_are_left_alone(database):
    of(database, "CREATE TABLE people(x int)")
    of(database, "INSERT INTO people VALUES(7)")
    with Gallery(database, model="m") as g: g.add("a", some(1))
    assert of_one(database, "SELECT x FROM public.people") == 7


def test_an_empty_database_needs_a_model(database):
    with pytest.raises(InputError, match="is empty, not a gallery: enrol people first"): Gallery(database)
    with pytest.raises(InputError, match="is empty, not a gallery: enrol people first"): Gallery.load(database)
    with pytest.raises(InputError, match="as text"): Gallery(Path(database), model="m")


def test_the_index_is_used_and_answers_as_before(database):
    e = some(31_500, 32)
    with Gallery(database, model="m") as g:
        g.add_many((f"p{i}", e[3*i:3*i + 3], "abc") for i in range(10_500))
        with g._moment() as db:
            plan = db.execute("EXPLAIN " + g._store._question(db, 32, 20).format(40), (e[0], e[0])).fetchall()
        assert any("people_nearest" in line for line, in plan)
        means = e[:31_500].reshape(-1, 3, 32).mean(1)
        asked = means[::210]/np.linalg.norm(means[::210], axis=1, keepdims=True)
        assert [m[0].name for m in g.search(asked, 1)] == [f"p{i}" for i in range(0, 10_500, 210)]
        g.add("late", some(1, 32, seed=5))
        assert "late" in [m.name for m in g.search(some(1, 32, seed=5), 20)[0]]
        g.remove("p7")
        assert all(m.name != "p7" for m in g.search(e[21:24].mean(0)/np.linalg.norm(e[21:24].mean(0)), 20)[0])


def test_a_build_that_was_killed_is_done_again(database):
    e = some(40, 32)
    with Gallery(database, model="m", exact=50) as g:
        g.add_many((f"p{i}", e[i:i + 1], "a") for i in range(40))
        of(database, "CREATE INDEX people_nearest ON facerec.people USING hnsw ((mean::halfvec(32)) halfvec_ip_ops)")
        of(database, "UPDATE pg_index SET indisvalid=false WHERE indexrelid='facerec.people_nearest'::regclass")
        g.add_many((f"q{i}", some(1, 32, i + 9), "a") for i in range(20))
        assert g._store._is_indexed(g._store._db)


def test_a_build_that_fails_is_a_warning(database, monkeypatch):
    monkeypatch.setattr(shared_gallery, "HNSW", "m=1")
    e = some(40, 32)
    with Gallery(database, model="m", exact=20) as g, pytest.warns(UserWarning, match="compare every reference"):
        assert g.add_many((f"p{i}", e[i:i + 1], "a") for i in range(40)) == 40
        assert len(g) == 40 and g.search(e[7])[0][0].name == "p7"


def test_removed_people_leave_the_tables(server, database):
    e = some(60, 64, seed=77)
    marks = [v.tobytes() for v in e[:3]] + [b"Anna Former", b"anna-source.jpg"]

    def on_disk():
        of(database, "CHECKPOINT")
        own = of_one(database, "SELECT oid FROM pg_database WHERE datname=current_database()")
        files = [p.read_bytes() for p in (server.folder/f"data/base/{own}").iterdir()]
        return [any(m in f for f in files) for m in marks]

    with Gallery(database, model="m") as g:
        for i in range(3, 60): g.add(f"p{i}", e[i])
        g.add("Anna Former", e[:3], ["anna-source.jpg"]*3)
        assert all(on_disk())
        g.remove("Anna Former")
        g.compact()
        assert not any(on_disk()) and len(g) == 57


def test_two_that_add_the_same_people_in_other_orders_do_not_block(database):
    names, errors = [f"n{i}" for i in range(30)], []

    def enrol(order):
        try:
            with Gallery(database, model="m") as g:
                for _ in range(5): g.add_many((n, some(1), ["x"]) for n in order)
        except Exception as e: errors.append(e)

    threads = [threading.Thread(target=enrol, args=(o,)) for o in (names, names[::-1], names[15:] + names[:15])]
    for t in threads: t.start()
    for t in threads: t.join()
    with Gallery(database) as g: assert not errors and set(g.people().values()) == {15}


def test_the_first_reference_decides_for_all_who_come_at_once(database):
    Gallery(database, model="m").close()
    done = []

    def enrol(dim):
        with Gallery(database) as g:
            try: done.append((g.add(f"p{dim}", some(1, dim)), dim))
            except InputError as e: done.append((str(e), dim))

    threads = [threading.Thread(target=enrol, args=(d,)) for d in (16, 32, 48, 64)]
    for t in threads: t.start()
    for t in threads: t.join()
    assert sum(n == 1 for n, _ in done) == 1 and len([d for d in done if "numbers, these have" in str(d[0])]) == 3


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_forked_process_has_connections_of_its_own(database):
    with Gallery(database, model="m") as g:
        g.add("a", some(1))
        pid = os.fork()
        if pid == 0:
            try: os._exit(g.search(some(1))[0][0].name != "a" or g.add("child", some(1, seed=1)) != 1)
            except BaseException: os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert g.people() == {"a": 1, "child": 1} and g.search(some(1))[0][0].name == "a"
