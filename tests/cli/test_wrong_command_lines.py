"""What people write who know other libraries, or are in a hurry: one line that says what there is instead."""

import shlex

import pytest

from shoal.cli.elsewhere import _ANSWERS, as_flag
from shoal.cli.main import main
from shoal.cli.values import whole_number

SEEDS = "`--seeds 3` trains three from --seed on, side by side"

LINES = {
    "eval runs/x": "`shoal evaluate RUN`",
    "enjoy --algo ppo": "`shoal evaluate RUN`",
    "learn ppo": "`shoal train ppo ENV`",
    "ppo CartPole-v1": "`shoal train ppo ENV`",
    "logs": "$SHOAL_LOG_DIRECTORY",
    "check_env CartPole-v1": "`shoal check ENV`",
    "environments": "`shoal envs [WORD]`",
    "ps": "`shoal status`",
    "start --head": "nothing is started beforehand".capitalize(),
    "-v": "Here it is --version",
    "--seed 1 train": "The command comes first",
    "train CartPole-v1": "the algorithm comes before the environment: shoal train ppo CartPole-v1",
    "train CartPole-v1 ppo": "the algorithm comes before the environment: shoal train ppo CartPole-v1",
    "train ddpp CartPole-v1": "unknown algorithm 'ddpp'. Did you mean 'ddpg'?",
    "train reinforce CartPole-v1": "unknown algorithm 'reinforce'. There are: ppo, a2c",
    "train --algo ppo --env CartPole-v1": "unknown flag '--algo'. The algorithm is the first word",
    "train --seed 1 ppo CartPole-v1": "the algorithm comes first, then flags",
    "train ppo --env CartPole-v1": "shoal train ppo ENV",
    "train ppo --env-id CartPole-v1": "shoal train ppo ENV",
    "train ppo ''": "ENV: the value is empty",
    "train ppo E --run-dir ''": "--run-dir: the value is empty",
    "train ppo E --render": "render_mode='human'",
    "train ppo E --render-mode human": "render_mode='human'",
    "train ppo E --plot": "'--plot'. learning_curve.png is in the run folder",
    "train ppo E --seed 1 2 3": f"unexpected argument '2' after --seed 1: a run has one seed; "
    f"{SEEDS}",
    "train ppo E --seed 1,2,3": SEEDS,
    "train ppo E --seed '[1, 2]'": SEEDS,
    "train ppo E --seeds 1 2 3": SEEDS,
    "train ppo E --gamma 0.9 0.99": "unexpected argument '0.99' after --gamma 0.9: --gamma takes one value",
    "train ppo E more": "unexpected argument 'more': shoal train ppo takes one ENV, and flags",
    "train ppo E --num-envs 4": "unknown flag '--num-envs'. Here it is --n-envs. See `shoal train ppo --help`",
    "train ppo E --gradient-accumulation-steps 4": "Here it is --gradient-shards.",
    "fit supervised t.csv --bf16": "Here it is --precision bfloat16.",
    "train ppo E --buffer-size 9": "unknown flag '--buffer-size'. It is a setting of apex, dqn, ",
    "train grpo copy-4 --dataset a.jsonl": "pretrain, sft, dpo, not of grpo, which acts in ENV: prompts",
    "generate r --max-tokens 9": "Here it is --max-new-tokens",
    "generate r --n 9": "Here it is --samples",
    "train ppo E --num_envs=4": "unknown flag '--num_envs'. Here it is --n-envs",
    "train ppo E --n-timesteps 9": "Here it is --total-timesteps",
    "train ppo E -n 9": "unknown flag '-n'. Here it is --total-timesteps",
    "train ppo E --lr=0.001": "unknown flag '--lr'. Here it is --learning-rate",
    "train ppo E --num-env-runners 2": "Here it is --workers",
    "train ppo E --clip-coef 0.2": "Here it is --clip-range",
    "train ppo E --update-epochs 4": "Here it is --n-epochs",
    "train ppo E --net-arch 64": """--policy-kwargs, such as '{"net_arch": [64, 64]}'""",
    "train ppo E --tensorboard-log logs": "tensorboard --logdir runs",
    "train ppo E --verbose 1": "standard error",
    "train ppo E --cuda": "Here it is --device cuda",
    "train ppo E --config a.yaml": "Each setting is a flag of its own",
    "train ppo E --n_stepz 9": "Did you mean '--n-steps'",
    "train ppo E --total-timesteps": "--total-timesteps wants a value",
    "train ppo E --total-timesteps=": "--total-timesteps: '' is not a whole number",
    "train ppo E --total-timesteps 1e4.5": "--total-timesteps: '1e4.5' is not a whole number",
    "train ppo E --total-timesteps 1e-3": "'1e-3' is not a whole number",
    "train ppo E --total-timesteps 1e999999999": "'1e999999999' is too large",
    "train ppo E --total-timesteps 10k": "'10k' is not a whole number: write 10e3",
    "train ppo E --total-timesteps 100,000": "'100,000' is not a whole number: write 100_000",
    "train ppo E --gamma 0,99": "'0,99' is not a number: write 0.99",
    "train ppo E --policy-kwargs net_arch=64": "--policy-kwargs: 'net_arch=64' is no JSON object; write for example",
    "train ppo E --policy-kwargs [64,64]": """write for example '{"net_arch": [64, 64]}'""",
    """train ppo E --env-kwargs '{"a": NaN}'""": "NaN is no JSON",
    "train ppo E --env-kwargs gravity=9": """write for example '{"gravity": 9.8}'""",
    "train ppo E --json yes": "--json takes no value: it switches on by being there; to switch it off, leave it out",
    "train ppo E --overwrite=true": "--overwrite takes no value",
    "train ppo E --normalize-advantage false": "to switch it off, write --no-normalize-advantage",
    "train --resume": "--resume wants a value",
    "train --resume --json": "--resume wants a value",
    "evaluate --run runs/x": "The run is the first word",
    "evaluate runs/x --n-eval-episodes 5": "Here it is --episodes",
    "evaluate runs/x --episodes 2.5": "--episodes: '2.5' is not a whole number",
    "evaluate runs/x --render": "--video episode.mp4",
    "evaluate runs/x --deterministic": "--stochastic",
    "evaluate runs/x runs/y": "shoal evaluate takes one RUN, and flags",
    "serve runs/x --port 8000": "Here it is --http, such as 127.0.0.1:8000",
    "serve runs/x --workers 2": "Here it is --replicas",
    "fit xgboost t.csv --target y": "Here it is --label",
    "fit xgbost t.csv": "Did you mean 'xgboost'? Write for example",
    "train grpo copi-4": "Did you mean 'copy-4'",
    "status foo": "unexpected argument 'foo': shoal status takes flags only",
    "status --watch=yes": "--watch takes no value",
    "list tasks --filter state": "'state' is no condition",
    "list tasks --format yaml": "'yaml' is not one of table, json",
    "memory --format json": "`shoal list WHAT --format json`",
    "story a b": "shoal story takes one ID, and flags",
    "timeline --output a.json": "shoal timeline OUT.json",
    "node --address foo:1": "Here it is --join",
    "node --join h:1 --resources a=1": """'{"license": 1}'""",
}  # fmt: skip


@pytest.mark.parametrize("line", LINES)
def test_one_line_says_what_is_wrong_and_what_there_is(line, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = main(shlex.split(line.replace(" E ", " CartPole-v1 ")))
    output = capsys.readouterr()
    assert (code, output.out) == (2, ""), output.err
    [message] = output.err.splitlines()
    assert message.startswith("error: ")
    assert LINES[line] in message
    assert len(message) < 400
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "value"),
    [("10000", 10_000), ("10_000", 10_000), ("1e4", 10_000), ("1E4", 10_000), ("1.5e3", 1500), ("-3", -3), ("2.0", 2)],
)
def test_how_a_whole_number_may_be_written(text, value):
    assert whole_number(text) == value
    assert type(whole_number(text)) is int


def test_every_whole_number_may_be_written_so(capsys):
    flags = "--total-timesteps 0e0 --seed 1e1 --n-envs 1_6 --n-steps 1e2 --batch-size 1e2 --workers 1e0"
    assert main(["train", "ppo", "CartPole-v1", *flags.split()]) == 2
    assert capsys.readouterr().err == "error: --total-timesteps is 0, but must be at least 1\n"


def test_help_for_a_command(capsys):
    assert main(["help", "evaluate"]) == 0
    assert "--episodes" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            "train es CartPole-v1 --clip-coef 2",
            "Here it is --clip-range: it is a setting of ppo, appo, token_ppo, not of",
        ),
        ("train ppo CartPole-v1 --clip-coef 2", "Here it is --clip-range. See"),
        ("train --clip-coef 2", "Here it is --clip-range. See"),
        ("fit xgboost table.csv --num-learners 2", "unknown flag '--num-learners'. Did you mean"),
        ("fit supervised table.csv --num-learners 2", "Here it is --learners, with --gradient-shards. See"),
    ],
)
def test_no_answer_names_a_flag_that_is_not_there(line, said, capsys):
    assert main(shlex.split(line)) == 2
    assert said in capsys.readouterr().err


def test_no_name_from_elsewhere_hides_one_of_ours():
    from dataclasses import fields

    from shoal.algorithms import ALGORITHMS, FITS
    from shoal.cli.evaluate import EvaluateFlags
    from shoal.cli.fit import FitFlags
    from shoal.cli.generate import GenerateFlags
    from shoal.cli.node import NodeFlags
    from shoal.cli.serve import ServeFlags
    from shoal.cli.train import TrainFlags
    from shoal.rl import RunSettings, settings_elsewhere

    configs = [algorithm.config_class for algorithm in ALGORITHMS.values()]
    ours = {"train": [TrainFlags, RunSettings, *configs], "evaluate": [EvaluateFlags], "serve": [ServeFlags]}
    ours["fit"] = [FitFlags, *(kind for fit in FITS.values() for kind in (fit.run_class, fit.config_class))]
    ours |= {"node": [NodeFlags], "generate": [GenerateFlags]}
    for command, classes in ours.items():
        flags = {item.name for cls in classes for item in fields(cls) if not item.metadata.get("positional")}
        answers = _ANSWERS[command]
        if command in ("train", "fit"):
            answers = settings_elsewhere(as_flag, of_learners_alone=command == "fit") | answers
        assert not flags & set(answers)
        for answer in answers.values():
            if answer.startswith("--"):
                assert answer.split()[0].strip(",").removeprefix("--").replace("-", "_") in flags, answer
