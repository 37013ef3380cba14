"""What other libraries call settings, methods and attributes, and what there is for it here.

Stable-Baselines3 and its zoo, CleanRL and RLlib are the libraries meant. Names stand in one text, separated by spaces.
An answer that begins with "{" is what to write instead; any other is a sentence. A setting is `{n_envs}` in it, one
with its value `{device=cuda}`: a command line writes them as flags, a program as arguments.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ..runtime import by_name, nearest, sentences

_NETWORK = "give {policy_kwargs}, such as '{\"net_arch\": [64, 64]}'"

SETTINGS = {
    "num_envs nenvs num_env num_environments num_envs_per_worker num_envs_per_env_runner vec_envs": "{n_envs}",
    "num_steps rollout_length rollout_fragment_length horizon nsteps n_rollout_steps unroll_length": "{n_steps}",
    "lr step_size learningrate": "{learning_rate}",
    "anneal_lr lr_schedule": "with {learning_rate=lin_0.001} the learning rate falls to 0",
    "discount discount_factor": "{gamma}",
    "lambda lambda_ lam gae": "{gae_lambda}",
    "clip_coef clip_param clip epsilon cliprange clip_eps": "{clip_range}",
    "clip_vloss vf_clip_param": "{clip_range_vf}",
    "entropy_coeff entropy_coef entropy": "{ent_coef}",
    "vf_loss_coeff value_coef vf_coeff value_loss_coef": "{vf_coef}",
    "norm_adv normalize_advantages": "{normalize_advantage}",
    "grad_clip max_norm clip_grad": "{max_grad_norm}",
    "kl_target kl": "{target_kl}",
    "update_epochs num_epochs epochs num_sgd_iter noptepochs": "{n_epochs}",
    "minibatch_size sgd_minibatch_size mini_batch_size": "{batch_size}",
    "num_minibatches nminibatches n_minibatches": "a minibatch has {batch_size} rows: n_envs · n_steps / minibatches",
    "train_batch_size train_batch_size_per_learner": "a rollout has n_envs · n_steps rows: set {n_steps}",
    "num_workers n_workers num_env_runners num_rollout_workers num_cpus n_jobs cpus processes num_proc": "{workers}",
    "gpu cuda num_gpus gpus use_cuda use_gpu": "{device=cuda}",
    "cpu no_cuda no_gpu": "{device=cpu}",
    "num_threads n_threads": "{threads}",
    "vec_env vec_env_type vec_env_cls subproc vectorization_mode": "environments are spread over processes by "
    "{workers}, and stepped together within one by {vectorization}",
    "noise_stdev sigma sigma_init": "{delta_std}",
    "l2_coeff": "{weight_decay}",
    "stepsize": "{learning_rate}",
    "popsize population population_size num_rollouts n_directions": "{n_delta}",
    "noise_size": "{noise_table_size}",
    "observation_filter": "{normalize=obs}",
    "random_seed": "{seed}",
    "eval_interval evaluation_interval evaluation_frequency eval_every": "{eval_freq}",
    "n_eval_episodes evaluation_duration num_eval_episodes": "{eval_episodes}",
    "eval_env evaluation": "with {eval_freq=10000} the policy is evaluated every so many steps, in environments of "
    "its own",
    "patience early_stopping max_no_improvement_evals no_improvement": "{eval_patience}",
    "net_arch hidden_sizes hidden layers fcnet_hiddens hidden_size fcnet_activation activation activation_fn network "
    "model": _NETWORK,
    "policy policy_type": f"the policy is a multi-layer perceptron; {_NETWORK}",
    "env_config env_args env_options": "{env_kwargs}",
    "gym_packages": "name the package before the id: module:Env-v0",
    "framework torch_deterministic deterministic": "it is torch, and the same seed gives the same weights",
    "norm_obs norm_reward normalize_observation normalize_reward normalize_kwargs vecnormalize": "{normalize}, such as "
    "obs,reward",
    "debug local_mode": "with {engine=serial} all runs in this process, for pdb",
    "tune_preset defaults": "{preset}",
    "port policy_server external_env external_simulator": "{listen}, such as 127.0.0.1:50051",
}
"""Of a training in an environment."""

LEARNERS = {
    "num_learners n_learners num_learner_workers world_size nproc_per_node": "{learners}, with {gradient_shards}",
    "gradient_accumulation gradient_accumulation_steps accumulate_grad_batches micro_batches accum_iter": "{"
    "gradient_shards}",
    "bf16 fp16 amp mixed_precision dtype": "{precision=bfloat16}",
    "torch_compile compile_model": "{compile}",
    "zero zero_stage zero1 deepspeed fsdp": "{shard_optimizer}, with {learners} and {gradient_shards}",
}
"""Of learners."""

LANGUAGE = {
    "warmup_steps warmup_ratio num_warmup_steps": "{warmup}",
    "model_name_or_path base_model init_from pretrained_model": "{initial}",
    "per_device_train_batch_size micro_batch_size": "{batch_size}",
}
"""Of language models."""

_PROGRESS = "watch it by train(…, callbacks=ProgressDisplay())"
_FOLDER = "metrics, also for TensorBoard, and checkpoints are written by train(…, callbacks=RunFolder(FOLDER))"
_PROGRAM = {
    "total_timesteps n_timesteps num_timesteps timesteps max_steps total_steps max_timesteps": "it is an argument of "
    "train(total_timesteps)",
    "stop_return stop_reward reward_threshold target_return": "it is an argument of train(…, stop_return=…)",
    "callback callbacks": "they are an argument of train(…, callbacks=…)",
    "verbose progress_bar log_interval quiet log_level": _PROGRESS,
    "tensorboard_log tensorboard log_dir logdir run_dir save_path output_dir local_dir": _FOLDER,
    "checkpoint_freq save_freq checkpoint_interval": "rl.CheckpointCallback among train's callbacks saves in between",
    "config hyperparams hyperparameters": "each setting is an argument of its own, such as n_envs=8",
    "seeds": "a training has one seed: train several, or `shoal train … --seeds 5`",
    "render render_mode video": "a policy is filmed by shoal.evaluate(…, video='episode.mp4')",
    "stats_window_size": "mean returns are those of the last 100 episodes",
    "use_sde sde_sample_freq": "exploration that depends on the state is not a part of it",
}
TRAIN = {
    "callback": "{callbacks}",
    "timesteps n_timesteps num_timesteps max_steps steps": "{total_timesteps}",
    "progress_bar log_interval verbose": "watch it by callbacks=ProgressDisplay()",
    "tb_log_name log_path save_path": "metrics, also for TensorBoard, are written by callbacks=RunFolder(FOLDER)",
    "reset_num_timesteps": "a second call goes on; a new training begins anew",
    "eval_env eval_freq n_eval_episodes": "evaluations are settings of the training, as in PPO(ENV, eval_freq=10_000)",
}
"""Arguments of `train`."""
_NETWORKS = {
    "activation_fn fcnet_activation": "{activation}, 'tanh' or 'relu'",
    "hidden_sizes fcnet_hiddens hidden layers": "{net_arch}",
    "features_extractor_class features_extractor custom_model": "{encoder}, a class of a module, or its path",
    "features_extractor_kwargs custom_model_config": "{encoder_kwargs}",
    "use_lstm lstm": "{memory=lstm}",
    "lstm_hidden_size n_lstm_layers lstm_cell_size": "{memory_kwargs}, such as {'units': 128}",
    "max_seq_len": "{sequence_length}",
    "optimizer_class optimizer_kwargs": "each algorithm has its paper's optimizer; learning_rate is a setting of it",
    "share_features_extractor vf_share_layers": "policy and value share encoder and memory, and no layer behind them",
}

_VALUES = {
    "gradient_steps": ("-1", "With a replay buffer, one for each step of a rollout is n_envs · train_freq"),
    "train_freq": (r"[(\[].*", "It counts steps of each environment, such as 4; whole episodes are no unit of it"),
    "ent_coef": ("auto_.*", "SAC's 'auto' learns it, from 1"),
}
"""Of a setting: a pattern of values that it has elsewhere, and what to say of them."""

_ARGUMENTS = ("env_kwargs", "preset", "engine")
"""Of a training, beside its settings."""

TRAINING = {
    "learn fit": "{train}(total_timesteps, callbacks=…)",
    "predict act compute_single_action compute_actions get_action select_action forward": "{policy}.act(observation, "
    "deterministic=True), which returns the action alone",
    "get_env env envs vec_env set_env get_vec_normalize_env make_env workers_env env_runner_group": "workers make "
    "their environments themselves, of spec; shoal.make(ENV) makes one for you",
    "set_parameters load_parameters set_weights load_state_dict set_state": "begin with saved weights by "
    "initial=FOLDER, or go on with a training by load(FOLDER)",
    "get_parameters state_dict parameters get_weights get_state": "all of them are policy.get_weights(), the "
    "torch module is policy.model",
    "num_timesteps n_timesteps timesteps_total": "{timesteps}",
    "observation_space action_space": "they are the policy's: policy.observation_space, policy.action_space",
    "logger set_logger record log": "callbacks get each iteration's metrics, in on_iteration_end(training, report); "
    + _FOLDER,
    "evaluate evaluate_policy": "use shoal.evaluate(…)",
    "restore from_checkpoint": "{load}(FOLDER)",
    "save_checkpoint save_to_path": "{save}(FOLDER)",
    "save_replay_buffer load_replay_buffer replay_buffer": "it is kept by save(FOLDER, save_replay=True), and "
    "load(FOLDER) goes on with it",
    "get_policy": "{policy}",
    "stop shutdown": "{close}()",
    "q_net actor critic policy_class": "networks are in policy.model, a torch module",
    "lr_schedule hyperparameters": "{config}, which holds the hyperparameters",
}
"""Attributes of a training."""

CONFIG = {
    "build build_algo environment env": "a config only checks hyperparameters. The training takes them and its "
    "environment at once: PPO(ENV, env_kwargs={…}, n_steps=128, …)",
    "training": "hyperparameters are arguments of the training: PPO(ENV, learning_rate=1e-3, n_epochs=4)",
    "env_runners rollouts": "it is settings of the training: PPO(ENV, workers=4, n_envs=32)",
    "learners resources": "it is settings of the training: PPO(ENV, learners=2, gradient_shards=2, device='cuda')",
    "evaluation": "it is settings of the training: PPO(ENV, eval_freq=10_000, eval_episodes=10)",
    "multi_agent": "policies are a setting of the training: PPO(ENV, policies='shared'), 'separate' or a mapping",
    "rl_module model": "the network is a setting of the training: PPO(ENV, policy_kwargs={'net_arch': [64, 64]})",
    "offline_data": "the dataset is a setting of algorithms such as IQL(dataset=…)",
    "callbacks": "they are an argument of train(…, callbacks=…)",
    "reporting checkpointing": _FOLDER,
    "fault_tolerance": "what dies is replaced, and repeats what it did, without a setting",
    "framework api_stack python_environment experimental": "it is torch, and there is nothing to choose",
    "debugging": "the seed is a setting of the training: PPO(ENV, seed=1)",
    "to_dict": "it is a dataclass: dataclasses.asdict(config)",
    "update_from_dict": "it is a frozen dataclass: dataclasses.replace(config, …)",
    "learn train": "a config only holds hyperparameters: PPO(ENV, …).train(total_timesteps) learns",
}
"""Attributes of hyperparameters, which RLlib has in a config."""

POLICY = {
    "predict forward compute_single_action compute_actions get_action select_action": "{act}(observation, "
    "deterministic=True), which returns the action alone",
    "state_dict load_state_dict parameters named_parameters eval train to": "the torch module that has it is model",
    "get_distribution evaluate_actions predict_values q_net actor critic mlp_extractor value_net": "networks are in "
    "model, a torch module",
    "learn": "a policy only acts: PPO(ENV, …).train(total_timesteps) learns",
}
"""Attributes of a policy."""

TEXT_POLICY = POLICY | {
    "predict forward chat complete sample compute_single_action compute_actions get_action select_action": "{generate}"
    "(prompts, max_new_tokens=…)",
    "tokenizer encode decode": "texts are made of model.tokens",
}
"""Attributes of a language model's policy."""
PACKAGE = {
    "MaskablePPO": "PPO, as every algorithm of discrete actions: it heeds an action_mask in the observation or in info",
    "RecurrentPPO": "PPO(ENV, policy_kwargs={'memory': 'lstm'})",
    "make_vec_env make_atari_env DummyVecEnv SubprocVecEnv": "PPO(ENV, n_envs=8, workers=4), which makes them itself",
    "VecNormalize": "PPO(ENV, normalize='obs,reward')",
    "EvalCallback": "PPO(ENV, eval_freq=10_000)",
    "BaseCallback DefaultCallbacks": "shoal.Callback",
    "evaluate_policy": "shoal.evaluate",
    "check_env": "shoal.check",
    "tune Tuner": "a loop; `shoal train … --seeds 5` for seeds",
}
"""Names that other packages have."""
_AFTER = "{on_iteration_end}(training, report), which is called after each iteration"
_CALLBACK = {
    "on_step _on_step on_episode_step on_sample_end on_train_result on_learn_on_batch": _AFTER,
    "on_rollout_start _on_rollout_start on_rollout_end _on_rollout_end": _AFTER,
    "on_episode_start on_episode_end on_episode_created": f"{_AFTER}: report.episodes holds those that ended",
    "on_evaluate_start on_evaluate_end": "{on_evaluation_end}(training, report)",
    "_on_training_start on_algorithm_init": "{on_training_start}(training, total_timesteps)",
    "_on_training_end": "{on_training_end}(training, result)",
    "_init_callback init_callback": "{on_training_start}(training, total_timesteps)",
}


def hook_instead(name: str) -> str | None:
    """Return what there is here for a method that other libraries call in a callback; None if they have none."""
    return attributes(_CALLBACK).get(name)


def attributes(table: Mapping[str, str]) -> dict[str, str]:
    """Return what to say of each name of a table of attributes or arguments, as sentences."""
    return {name: _sentence(_plain(answer), answer) for name, answer in by_name(table).items()}


def package_instead(name: str) -> str | None:
    """Return what there is here for a name that is imported from other libraries, as a sentence; None if they have
    none."""
    return sentences(PACKAGE).get(name)


def settings_elsewhere(write: Callable[[str, str], str], *, of_learners_alone: bool = False) -> dict[str, str]:
    """Return what there is here for each name of a setting, with our settings as `write` writes them, which is given
    name and value ("" for none)."""
    tables = (LEARNERS,) if of_learners_alone else (SETTINGS, LEARNERS, LANGUAGE)
    return {name: _written(answer, write) for name, answer in by_name(*tables).items()}


def _written(answer: str, write: Callable[[str, str], str]) -> str:
    return re.sub(r"\{(\w+)(?:=([^}]*))?\}", lambda found: write(found[1], found[2] or ""), answer)


def setting_instead(name: str, known: Iterable[str]) -> str:
    """Return what to say of a setting that is not one of `known`: what it is called here, or the nearest names."""
    return _instead(name, known, by_name(LANGUAGE, SETTINGS, LEARNERS, _PROGRAM))


def value_instead(setting: str, value: Any) -> str:
    """Return what to add to the message on a value that is refused here: what there is for it; "" if it is not known
    from elsewhere."""
    pattern, answer = _VALUES.get(setting, ("", ""))
    return f". {answer}" if pattern and re.fullmatch(pattern, str(value)) else ""


def network_instead(name: str, known: Iterable[str]) -> str:
    """Return what to say of an entry of `policy_kwargs` that is not one of `known`."""
    return _instead(name, known, by_name(_NETWORKS))


def _instead(name: str, known: Iterable[str], answers: Mapping[str, str]) -> str:
    known, answer = list(known), answers.get(name, "")
    if not answer or not {*re.findall(r"\{(\w+)", answer)} <= {*known, *_ARGUMENTS}:
        return nearest(name, known)
    return _sentence(_written(answer, _as_argument), answer)


def _as_argument(setting: str, value: str) -> str:
    return f"{setting}={value if value.isdecimal() else repr(value)}" if value else setting


def _plain(answer: str) -> str:
    return _written(answer, lambda own, _: own)


def _sentence(said: str, answer: str) -> str:
    return f"Here it is {said}." if answer.startswith("{") else f"{said[:1].upper()}{said[1:]}."


def check_by_name(kind: str, env: Any, others: Sequence[Any]) -> None:
    """Raise TypeError if more than the environment was given to a training of that `kind` by its place."""
    if others:
        what = next((given for given in (env, *others) if str(given).endswith("Policy")), None)
        network = "" if what is None else f"; its network is chosen by policy_kwargs, not by {what!r}"
        raise TypeError(
            f"{kind} takes the environment alone by its place, and all settings by name, as in "
            f"{kind}('CartPole-v1', n_envs=8){network}"
        )
