"""What `jaxmeta launch` would run, and that it is what the user asked for."""

import dataclasses
import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from jaxmeta.cli import main
from jaxmeta.commands.train import read
from jaxmeta.core import catalogue
from jaxmeta.launch_job import Job, template_dir
from jaxmeta.launch_tpu import Gke, TpuVm, slice_of
from jaxmeta.launcher import TARGETS, Local, Sky, Slurm

GOLDEN = Path(__file__).parent / "golden"
TRAIN = "--steps 100 --learner.inner-steps 2"
COMMANDS = {
    "local": f"local msr-fc --run-dir runs/x --port 1234 --devices 4 {TRAIN}",
    "slurm": "slurm msr-fc --run-dir '/shared/my runs/x' --nodes 4 --gpus-per-node 2 "
    f"--partition gpu --account me {TRAIN}",
    "tpu-vm": f"tpu-vm msr-fc --run-dir /mnt/runs/x --tpu v5litepod-16 --spot {TRAIN}",
    "gke": f"gke msr-fc --image me/jaxmeta:1 --tpu tpu7x-16 {TRAIN}",
    "sky-gpu": "sky msr-fc --run-dir /mnt/x --accelerators H100:8 --nodes 2 --spot "
    f"{TRAIN}",
    "sky-tpu": f"sky msr-fc --run-dir /mnt/x --accelerators tpu-v6e-16 {TRAIN}",
    "sky-slurm": "sky msr-fc --run-dir /mnt/x --accelerators A100:4 --nodes 2 --infra "
    f"slurm/ours {TRAIN}",
}


@pytest.fixture(scope="module")
def rendered():
    """What every command prints."""

    def one(command):
        with pytest.MonkeyPatch.context() as patch:
            printed = []
            patch.setattr(
                "builtins.print", lambda text, end="\n": printed.append(text + end)
            )
            main(["launch", *shlex.split(command), "--dry-run"])
        return "".join(printed)

    return {name: one(command) for name, command in COMMANDS.items()}


@pytest.mark.parametrize("name", COMMANDS)
def test_dry_runs_print_exactly_what_would_run(name, rendered):
    assert rendered[name] == (GOLDEN / f"launch-{name}.txt").read_text()


@pytest.mark.parametrize("name", COMMANDS)
def test_the_commands_give_the_experiment_that_was_asked_for(name, rendered):
    lines = re.findall(r"jaxmeta train .*", rendered[name])
    assert len(lines) == (2 if name == "local" else 1)
    for line in lines:
        if name == "tpu-vm":  # quoted once more for ssh
            line = line.rstrip("'").replace("'\"'\"'", "'")
        line = line.removesuffix(" &").removesuffix(" || status=$?")
        line = line.partition(" --coordinator=")[0]  # a shell fills in the rest
        words = shlex.split(line)
        entry = catalogue.find(words[2], "experiment")
        options, experiment = read(entry, words[3:])
        assert experiment == read(entry, TRAIN.split())[1]
        run_dir = re.search(r"--run-dir ('[^']+'|\S+)", COMMANDS[name])
        asked = shlex.split(run_dir[1])[0] if run_dir else "/runs/msr-fc"
        assert str(options.run_dir) == asked


@pytest.mark.parametrize("name", ["local", "slurm", "tpu-vm"])
def test_scripts_are_shell(name, rendered):
    checks = [["bash", "-n"]]
    if shutil.which("shellcheck"):
        # Of the setup it cannot know what is sourced.
        checks.append(["shellcheck", "--exclude=SC1091", "--shell=bash", "-"])
    for check in checks:
        subprocess.run(check, input=rendered[name], text=True, check=True)


@pytest.mark.parametrize("name", ["sky-gpu", "sky-tpu", "sky-slurm"])
def test_sky_files_hold_what_they_should(name, rendered):
    task = yaml.safe_load(rendered[name])
    assert task["resources"]["job_recovery"]["recover_on_exit_codes"] == [
        4,
        42,
        134,
        137,
        143,
    ]
    assert task["num_nodes"] == (1 if name == "sky-tpu" else 2)
    assert ("SKYPILOT_NODE_RANK" in task["run"]) == (name != "sky-tpu")
    assert task["run"].startswith("jaxmeta train msr-fc --run-dir /mnt/x")
    assert task["resources"].get("use_spot", False) == (name == "sky-gpu")


def tool(name):
    """The program, which lies in an environment of its own."""
    found = shutil.which(name)
    if not found:
        pytest.skip(f"{name} is not on the PATH")
    return Path(found).resolve()


def test_sky_reads_the_files(rendered, tmp_path):
    python = tool("sky").with_name("python")
    paths = {name: tmp_path / f"{name}.yaml" for name in COMMANDS if "sky" in name}
    for name, path in paths.items():
        path.write_text(rendered[name])
    program = (
        "import sky, sys\nfor path in sys.argv[1:]:\n"
        "    task = sky.Task.from_yaml(path)\n"
        "    (wanted,) = task.resources\n"
        "    print(task.num_nodes, wanted.accelerators, wanted.use_spot)"
    )
    words = [python, "-c", program, *paths.values()]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    said = [line for line in done.stdout.splitlines() if "accelerator_args" not in line]
    assert dict(zip(paths, said, strict=True)) == {
        "sky-gpu": "2 {'H100': 8} True",
        "sky-tpu": "1 {'tpu-v6e-16': 1} False",
        "sky-slurm": "2 {'A100': 4} False",
    }


def test_gcloud_knows_every_word(rendered, tmp_path):
    program = tool("gcloud")
    script = rendered["tpu-vm"]
    quoted = r"""(?:[^\n'"]|'[^']*'|"[^"]*")*"""
    commands = re.findall(rf"^(?:#   )?(gcloud {quoted})", script, re.MULTILINE)
    commands += re.findall(r"\$\((gcloud .*)\) ", script)
    assert len(commands) == 5
    told = [{"command_string": line} for line in [*commands, "gcloud compute x"]]
    (tmp_path / "commands.json").write_text(json.dumps(told))
    words = [program, "meta", "lint-gcloud-commands"]
    done = subprocess.run(
        [*words, f"--commands-file={tmp_path / 'commands.json'}"],
        capture_output=True,
        text=True,
        check=False,
    )
    found = json.loads(done.stdout[done.stdout.index("[{") :])
    assert [each["success"] for each in found] == [True] * 5 + [False]


@pytest.mark.parametrize("tpu", ["v4-32", "v5litepod-16", "v6e-16", "tpu7x-16"])
def test_xpk_makes_the_same_job_set(tpu, tmp_path):
    place = "--cluster=c --project=p --zone=us-central2-b --workload=jaxmeta"
    what = f"--tpu-type={tpu} --docker-image=me/jaxmeta:1 --command=true"
    out = tmp_path / "theirs.yaml"
    words = [tool("xpk"), "workload", "create", *place.split(), *what.split()]
    words += ["--dry-run", f"--output-manifest-file={out}"]
    subprocess.run(words, capture_output=True, check=True)
    text = Gke(image="me/jaxmeta:1", tpu=tpu).render(
        Job(config="msr-fc", run_dir="/runs/x")
    )

    def shape(text):
        jobs = yaml.safe_load(text)
        (job,) = jobs["spec"]["replicatedJobs"]
        spec = job["template"]["spec"]
        pod = spec["template"]["spec"]
        (container,) = pod["containers"]
        kept = {name: spec[name] for name in ("parallelism", "completions")}
        kept |= {"backoffLimit": spec["backoffLimit"], "replicas": job["replicas"]}
        labels = pod["nodeSelector"].items()
        kept |= {label: value for label, value in labels if "gke-tpu" in label}
        rules = jobs["spec"]["failurePolicy"]["rules"]
        return kept | {
            "chips": container["resources"]["limits"]["google.com/tpu"],
            "rules": rules,
            "again": pod["restartPolicy"],
            "meta": jobs["metadata"]["annotations"],
            "kind": (jobs["apiVersion"], jobs["kind"]),
        }

    assert shape(text) == shape(out.read_text())


@pytest.mark.parametrize(
    ("tpu", "hosts", "topology", "accelerator"),
    [
        ("v4-32", 4, "2x2x4", "tpu-v4-podslice"),
        ("v5litepod-16", 4, "4x4", "tpu-v5-lite-podslice"),
        ("v5litepod-8", 1, "2x4", "tpu-v5-lite-podslice"),
        ("v6e-16", 4, "4x4", "tpu-v6e-slice"),
        ("v5p-8", 1, "2x2x1", "tpu-v5p-slice"),
        ("tpu7x-16", 2, "2x2x2", "tpu7x"),
    ],
)
def test_job_sets_have_a_process_a_host(tpu, hosts, topology, accelerator):
    text = Gke(image="me/jaxmeta:1", tpu=tpu, name="a-b").render(
        Job(config="msr-fc", run_dir="/runs/x")
    )
    jobs = yaml.safe_load(text)
    assert jobs["metadata"]["name"] == "a-b"
    (job,) = jobs["spec"]["replicatedJobs"]
    spec = job["template"]["spec"]
    assert spec["parallelism"] == spec["completions"] == hosts
    pod = spec["template"]["spec"]
    labels = [f"cloud.google.com/gke-tpu-{x}" for x in ("accelerator", "topology")]
    assert [pod["nodeSelector"][x] for x in labels] == [accelerator, topology]
    (container,) = pod["containers"]
    sides = [int(side) for side in topology.split("x")]
    chips = 1
    for side in sides:
        chips *= side
    assert container["resources"]["limits"]["google.com/tpu"] * hosts == chips
    # Exit code 42 and kills start all again, mistakes and a loss of nan do not.
    (rule,) = spec["podFailurePolicy"]["rules"]
    assert rule["action"] == "FailJob"
    assert rule["onExitCodes"]["operator"] == "In"
    assert rule["onExitCodes"]["values"] == [1, 2, 3]
    assert jobs["spec"]["failurePolicy"]["rules"][0]["action"] == "FailJobSet"
    assert jobs["spec"]["failurePolicy"]["maxRestarts"] > 0


def test_a_port_is_found_that_is_free(capsys):
    main(["launch", "local", "msr-fc", "--dry-run"])
    ports = re.findall(r"--coordinator=127.0.0.1:(\d+)", capsys.readouterr().out)
    assert len(ports) == 2
    assert len(set(ports)) == 1
    assert int(ports[0]) > 0


def test_a_config_of_ones_own_goes_along(tmp_path):
    job = Job(config="dir/mine.py", run_dir="/mnt/x")
    text = TpuVm().render(job)
    assert "tpu-vm scp dir/mine.py jaxmeta:" in text
    assert "jaxmeta train mine.py" in text
    assert yaml.safe_load(Sky().render(job))["workdir"] == "."


@pytest.mark.parametrize(
    ("tpu", "hosts"),
    [("v2-8", 1), ("v3-32", 4), ("v4-32", 4), ("v5litepod-8", 1), ("v6e-16", 4)],
)
def test_a_script_says_how_many_hosts_there_are(tpu, hosts):
    text = TpuVm(tpu=tpu).render(Job(config="msr-fc", run_dir="/mnt/x"))
    assert f"# {hosts} host{'s' * (hosts > 1)} of a Cloud TPU {tpu}." in text


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (Local, {"num_processes": 0}, r"num_processes must be >= 1, got 0"),
        (Local, {"port": 99999}, r"port must be at most 65535, got 99999"),
        (Slurm, {"nodes": 0}, r"nodes must be >= 1, got 0"),
        (Slurm, {"time": "rubbish"}, r"time must be .*got 'rubbish'"),
        (Slurm, {"partition": "a b"}, r"partition must be one word.*got 'a b'"),
        (Slurm, {"name": "My Job"}, r"name must be small letters.*got 'My Job'"),
        (TpuVm, {"tpu": "tpu7x-16"}, r"got 'tpu7x-16'; TPU7x is reached by .*gke"),
        (TpuVm, {"tpu": "v4"}, r"got 'v4'"),
        (TpuVm, {"tpu": "v2-7"}, r"the sizes of v2 are 8, 32, .*got 'v2-7'"),
        (TpuVm, {"tpu": "v5p-7"}, r"the sizes of v5p are .*got 'v5p-7'"),
        (TpuVm, {"zone": "a b"}, r"zone must be one word.*got 'a b'"),
        (Gke, {"image": ""}, r"image must name a container"),
        (Gke, {"image": "me: x"}, r"image must be one word.*got 'me: x'"),
        (Gke, {"image": "me:"}, r"image must be one word.*got 'me:'"),
        (Gke, {"image": "x", "mount": ""}, r"mount must be an absolute path.*got ''"),
        (Gke, {"image": "x", "mount": "/"}, r"mount must be .*got '/'"),
        (Gke, {"image": "x", "tpu": "v99-16"}, r"tpu must be one of v4.*'v99-16'"),
        (Gke, {"image": "x", "tpu": "v4-33"}, r"the sizes of v4 are 8, 16, 32.*v4-33"),
        (Sky, {"accelerators": "H100:8: 3"}, r"accelerators must be .*'H100:8: 3'"),
        (Sky, {"accelerators": "tpu-v3-7"}, r"the sizes of v3 are .*got 'v3-7'"),
        (Gke, {"image": "x", "tpu": "v6e-\u0661\u0666"}, r"tpu must be one of v4"),
        (Sky, {"infra": "a: b"}, r"infra must be one word.*got 'a: b'"),
        (Sky, {"accelerators": "tpu-tpu7x-16"}, r"got 'tpu7x-16'; TPU7x is .*gke"),
        (Sky, {"accelerators": "tpu-v6e-16", "nodes": 2}, r"a TPU is one node.*got 2"),
    ],
)
def test_settings_that_are_refused(kind, settings, message):
    with pytest.raises(ValueError, match=message):
        kind(**settings)


@pytest.mark.parametrize("target", [TpuVm(), Sky(), Gke(image="x")])
def test_the_run_directory_must_be_seen_by_all(target):
    with pytest.raises(ValueError, match=r"run_dir must be .*all hosts see.*'runs/x'"):
        target.render(Job(config="msr-fc", run_dir="runs/x"))


def test_sky_reaches_every_kind_of_cloud_tpu():
    for tpu in ("v2-8", "v3-32", "v4-8", "v5litepod-4", "v5p-8", "v6e-16"):
        text = Sky(accelerators=f"tpu-{tpu}").render(Job(config="x", run_dir="/mnt/x"))
        assert yaml.safe_load(text)["resources"]["accelerators"] == f"tpu-{tpu}"


@pytest.mark.parametrize("target", [Gke(image="123"), Sky(infra="no")])
def test_words_that_yaml_knows_are_still_names(target):
    target = dataclasses.replace(target, name="null", setup="  true\n  false # x\n")
    made = yaml.safe_load(target.render(Job(config="x", run_dir="/runs/x")))
    if isinstance(target, Sky):
        assert (made["name"], made["resources"]["infra"]) == ("null", "no")
        assert made["setup"].splitlines()[1:] == ["true", "false # x"]
        return
    assert made["metadata"]["name"] == "null"
    pod = made["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["image"] == "123"
    assert container["args"][0].splitlines()[:2] == ["true", "false # x"]


def test_a_run_directory_that_leaves_its_mount():
    job = Job(config="x", run_dir="/runs/x/../../etc")
    with pytest.raises(ValueError, match="run_dir must be below /runs"):
        Gke(image="x").render(job)


@pytest.mark.parametrize("config", ["/abs/x.py", "../x.py"])
def test_sky_brings_what_is_here(config):
    job = Job(config=config, run_dir="/mnt/x")
    with pytest.raises(ValueError, match=rf"CONFIG must be there, got '{config}'"):
        Sky().render(job)


def test_a_setup_may_end_with_a_comment():
    text = TpuVm(setup="true # comment").render(Job(config="x", run_dir="/mnt/x"))
    *_, last = shlex.split(text, comments=True)
    assert last.partition("--command=")[2].splitlines() == [
        "set -e",
        "source ~/jaxmeta/bin/activate",
        "true # comment",
        "jaxmeta train x --run-dir /mnt/x",
    ]


def test_processes_take_the_gpus_that_may_be_seen(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    job = Job(config="x", run_dir="y")
    found = Local(gpus=True).processes(job)
    assert [environ["CUDA_VISIBLE_DEVICES"] for environ, _ in found] == ["3", "5"]
    with pytest.raises(ValueError, match=r"at most 2, the GPUs in .*'3,5'.*, got 3"):
        Local(gpus=True, num_processes=3)


def test_every_kind_of_slice_has_its_smallest_and_largest():
    assert slice_of("v6e-256").hosts == 64
    assert slice_of("v4-8").hosts == 1


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        ("", "which TARGET?"),
        ("moon msr-fc", "unknown target 'moon'"),
        ("slrm msr-fc", "'slurm'?"),
        ("local", "which CONFIG?"),
        ("local no-such", "no-such"),
        ("local msr-fc --stepps 3", "--steps?"),
        ("local msr-fc --steps 0", "got 0"),
        ("local msr-fc --num-processes 0", "got 0"),
        ("gke msr-fc", "--image"),
        ("slurm msr-fc --coordinator x:1", "set by the target"),
        ("tpu-vm msr-fc --dry-run", "absolute path"),
    ],
)
def test_mistakes_are_one_line(argv, named, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["launch", *argv.split()])
    assert stop.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") <= 2
    assert named in err


def test_a_missing_program_is_named(capsys, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(SystemExit) as stop:
        main(["launch", "slurm", "msr-fc"])
    assert stop.value.code == 2
    assert "sbatch is not on the PATH" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["slurm", "tpu-vm", "gke", "sky-gpu"])
def test_the_program_is_given_a_file_and_nothing_to_read(
    name, rendered, tmp_path, monkeypatch
):
    program = TARGETS[name.removesuffix("-gpu")].program
    fake = tmp_path / program[0]
    # It says what it was given, and swallows what is on its standard input.
    fake.write_text('#!/bin/sh\ncp "$(eval echo \\$$#)" given\n/bin/cat > swallowed\n')
    fake.chmod(0o755)
    (tmp_path / "cp").symlink_to("/bin/cp")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit) as stop:
        main(["launch", *shlex.split(COMMANDS[name])])
    assert stop.value.code == 0
    assert (tmp_path / "given").read_text() == rendered[name]


@pytest.mark.parametrize("target", TARGETS)
def test_help_lists_the_options(target, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["launch", target, "--help"])
    assert stop.value.code == 0
    assert "--dry-run" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["local", "slurm", "tpu-vm", "gke", "sky-gpu"])
def test_the_readme_shows_what_runs(name, rendered):
    readme = (template_dir() / "README.md").read_text()
    assert rendered[name].rstrip() in readme
