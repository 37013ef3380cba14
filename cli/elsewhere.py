"""What other tools call things, or have, and what there is for it here.

An answer that begins with a dash is what to write instead; any other is a sentence. Names are without dashes, with
underscores for hyphens. Stable-Baselines3 and its zoo, CleanRL, RLlib and the commands of Ray are the tools meant;
what they call settings, programs know, too (`rl.elsewhere`).
"""

from collections.abc import Mapping

from ..runtime import by_name

_NO_PICTURES = (
    "nothing is drawn while it runs; `shoal evaluate RUN --video FILE.mp4` films a policy. To watch it live, make the "
    "environment with render_mode='human' in a program, and step it with shoal.Policy.load(RUN).act"
)
_METRICS = "metrics.jsonl and TensorBoard's events are in the run folder: tensorboard --logdir runs"
_SEEDS = "a run has one seed; `--seeds 3` trains three from --seed on, side by side"
_FIRST_RUN = "the run is the first word after the command, such as runs/cartpole"

PROMPTS = "prompts of your own become one by envs.register(NAME, envs.Prompts, prompts=…, reward=…)"

_COMMANDS = {
    "eval enjoy test play run": "evaluate a trained policy with `shoal evaluate RUN`",
    "learn": "train with `shoal train ppo ENV`",
    "ppo a2c dqn qrdqn sac td3 ddpg es ars impala": "an algorithm comes after train: `shoal train ppo ENV`",
    "resume continue load": "go on with a run by `shoal train --resume RUN`",
    "check_env validate": "`shoal check ENV`; in a program it is shoal.check(ENV)",
    "logs log": "workers' output is on standard error, and in files under $SHOAL_LOG_DIRECTORY, or shoal-UID in the "
    "folder of temporary files; `shoal status` shows what runs",
    "ps top summary jobs": "`shoal status` shows what runs, `shoal list WHAT` its tasks, actors and more",
    "get describe": "`shoal list WHAT` shows tasks, actors and more, `shoal story ID` one of them",
    "start stop init up down submit job attach": "nothing is started beforehand: a program starts the runtime and "
    "ends it. `shoal node --join` adds a machine",
    "deploy http server": "`shoal serve RUN`",
    "trace profile": "`shoal timeline OUT.json`",
    "compare curves": "`shoal plot RUN…` compares runs in one picture",
    "tensorboard": "a run folder has learning_curve.png, metrics.jsonl and events for TensorBoard",
    "render video record": "`shoal evaluate RUN --video FILE.mp4`",
    "tune sweep search optimize": "searching settings is not a part of it: call shoal.PPO in a loop",
    "environments env games": "`shoal envs [WORD]` lists the environments that can be made here",
    "v version V": "--version",
    "h": "--help",
}

_TRAIN = {
    "algo algorithm agent method": "the algorithm is the first word: shoal train ppo ENV",
    "env env_id env_name environment task game gym_id": "the environment comes after the algorithm, without a flag: "
    "shoal train ppo ENV",
    "n_timesteps timesteps steps num_timesteps max_steps total_steps num_steps_total max_timesteps n stop_timesteps "
    "env_steps stop_iters training_iterations iterations max_iterations n_episodes episodes": "--total-timesteps",
    "max_length max_seq_length block_size": "`--policy-kwargs '{\"context\": 256}'` is the length of rows of tokens",
    "num_seeds n_seeds": "--seeds",
    "log_folder log_dir logdir save_path save_dir output output_dir out o f local_dir storage_path results_dir folder "
    "exp_name run_name name experiment save model_dir": "--run-dir",
    "tensorboard_log tensorboard tb log_interval logger progress_bar progress": _METRICS,
    "track wandb use_wandb": "--log wandb",
    "mlflow": "--log mlflow",
    "csv csv_log": "--log csv",
    "plot curve": "learning_curve.png is in the run folder when the training ends",
    "render render_mode video capture_video record_video monitor display": _NO_PICTURES,
    "hyperparams hyperparameters hyperparams_file config conf_file conf config_file yaml params args": "each setting "
    "is a flag of its own, and config.json in the run folder holds them all",
    "load restore trained_agent i checkpoint checkpoint_path from_checkpoint load_path continue": "--resume",
    "checkpoint_freq save_freq checkpoint_interval save_interval checkpoint_frequency": "--checkpoint-seconds",
    "stop stop_reward reward_threshold target_return target_reward stop_mean_reward": "--stop-return",
    "verbose v quiet q silent log_level": "there is one kind of output, on standard error: 2> FILE keeps it away",
    "force": "--overwrite",
}

_EVALUATE = {
    "run run_dir path folder f load checkpoint checkpoint_path model trained_agent i save_path log_folder": _FIRST_RUN,
    "algo algorithm": "the run knows its algorithm",
    "n_eval_episodes num_episodes n_episodes eval_episodes n": "--episodes",
    "n_timesteps timesteps steps": "`--episodes` counts what is played",
    "deterministic greedy": "actions are the most likely ones unless you give --stochastic",
    "sample random": "--stochastic",
    "env_id env_name environment": "--env",
    "env_config env_args": "--env-kwargs",
    "record record_video capture_video render render_mode display monitor": "--video, such as --video episode.mp4",
    "seeds": "`--seed` decides the starts of all episodes",
    "workers num_workers num_envs n_envs": "one process plays up to 32 episodes side by side",
    "device": "an evaluation runs on the CPU",
    "output out o": "`shoal evaluate RUN --json > FILE` writes the result",
    "verbose v quiet q": "standard output holds the result alone",
}

_SERVE = {
    "run run_dir path folder f load checkpoint checkpoint_path model model_path trained_agent": _FIRST_RUN,
    "port p": "--http, such as 127.0.0.1:8000",
    "host bind ip listen": "--http, such as 127.0.0.1:8000",
    "workers num_workers num_replicas n processes": "--replicas",
    "batch_size max_batch": "--max-batch-size",
    "batch_wait_timeout_s batch_timeout timeout": "--batch-wait",
    "max_queued_requests max_ongoing_requests queue": "--max-waiting",
    "device gpu cuda": "replicas answer on the CPU",
    "watch hot_reload": "--reload, such as --reload 5",
}

_GENERATE = {
    "run run_dir path folder f load checkpoint checkpoint_path model model_path model_name_or_path": _FIRST_RUN,
    "max_tokens max_length max_completion_tokens num_predict n_predict length": "--max-new-tokens",
    "n num_samples n_samples num_return_sequences best_of": "--samples",
    "temp t": "--temperature",
    "greedy deterministic do_sample": "`--temperature 0` takes the most likely token each time",
    "input prompts text message p": "--prompt",
    "stop_sequences stop_strings stop_token until": "--stop",
    "output out o": "`shoal generate RUN --json > FILE` writes a line for each answer",
    "device gpu cuda cpu": "answers are computed on the CPU",
    "stream streaming": "an answer is shown as it comes",
}

_FIT = {
    "target target_column label_column y labels": "--label",
    "num_boost_round n_estimators num_rounds nrounds iterations steps epochs": "--rounds",
    "eta lr step_size": "--learning-rate",
    "num_workers n_jobs": "--workers",
}

_OBSERVED = {
    "address ray_address session_id program pid": "--session",
    "watch w f follow": "`shoal status --watch` shows a program again and again",
    "json": "`shoal status --json` and `shoal list WHAT --format json` print JSON",
    "format": "`shoal list WHAT --format json` prints JSON",
    "output out o": "the file is the first word: shoal timeline OUT.json",
    "interval n": "--every",
    "verbose v detail": "`shoal story ID` tells all there is to one task, object or actor",
}

_NODE = {
    "address head head_address": "--join",
    "token redis_password": "--token-file, or the environment variable SHOAL_TOKEN: arguments can be read by others",
    "head port": "a program becomes the head with runtime.init(listen=HOST:PORT)",
    "cpus": "--num-cpus",
    "gpus": "--num-gpus",
}


#: Flags whose users often have several values in mind.
SEVERAL = {"seed": _SEEDS, "seeds": _SEEDS}


_observed = by_name(_OBSERVED)
_ANSWERS = {
    "": by_name(_COMMANDS),
    "train": by_name(_TRAIN),
    "evaluate": by_name(_EVALUATE),
    "serve": by_name(_SERVE),
    "generate": by_name(_GENERATE),
    "fit": by_name(_FIT),
    "node": by_name(_NODE),
    **dict.fromkeys(("status", "list", "memory", "story", "timeline"), _observed),
}


def as_flag(setting: str, value: str) -> str:
    """Return a setting, with its value if there is one, as a command line has it: how `rl` shall write its answers."""
    return f"--{setting.replace('_', '-')} {value}".rstrip()


def instead(command: str, name: str, settings: Mapping[str, str] | None = None) -> str:
    """Return what there is here for a name from elsewhere, as a sentence; "" if the name is not known from elsewhere.

    Args:
        command: such as train; "" for the names of commands.
        name: a flag's or command's, in whatever spelling.
        settings: further answers, those of `rl` to names of settings.
    """
    answers = {**(settings or {}), **_ANSWERS.get(command, {})}
    answer = answers.get(name.strip("-").replace("-", "_")) or ""
    return f"Here it is {answer}" if answer.startswith("-") else answer
