"""Deltas that differ between loops: against a dense unrolled model, recomputed, windowed, saved, merged, counted."""

import copy
import gc

import pytest
import torch
from torch.func import functional_call

import adapters
from adapters import ConfigurationError, MergeError
from adapters.base.loops import DeltaPerLoop, LoopCounter, split_loop
from adapters.zero_cores import active_deltas, zero_core
from third_party.models.looped import LoopedConfig, LoopedModel

SIZE, LOOPS, RANK = 16, 3, 2
TARGETS = {"gpt2": ["attn.c_proj"], "llama": ["q_proj", "o_proj"]}
ONE_TENSOR = {"kind": "tt_lora", "modes": ["in", "loop", "matrix", "out"], "rank": RANK}
INDEPENDENT = {"kind": "tt_lora", "modes": ["in", "out"], "rank": RANK, "loops": "all"}
BASE_TRAINS = {"kind": "none"}
CHECKPOINTING = "activation_checkpointing_enable"


def test_a_model_of_your_own_counts_its_loops():
    class Own(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(4, 4)
            self.loops = LoopCounter(3)

        def forward(self, x):
            for loop in range(3):
                self.loops.current = loop
                x = self.layer(x)
            return x

    model, x = Own(), torch.randn(2, 4)
    before = model(x)
    adapters.attach(model, INDEPENDENT | {"target_modules": "all-linear"})
    assert torch.equal(model(x), before)
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 3 * RANK * 8


def looped(block="gpt2", **options):
    torch.manual_seed(0)
    sizes = {"hidden_size": SIZE, "num_heads": 2, "input_size": 3, "output_size": 2, "positions": {"number": 16}}
    return LoopedModel(LoopedConfig(**sizes | {"block": block, "loops": {"num_loops": LOOPS}} | options))


def vectors(dtype=torch.float64):
    return torch.randn(2, 6, 3, dtype=dtype, generator=torch.Generator().manual_seed(1))


def adapted(config, block="gpt2", base=False, **options):
    """A float64 model whose deltas have left zero."""
    model = looped(block, **options)
    config = config | {"target_modules": TARGETS[block]}
    adapters.attach(model, [config, BASE_TRAINS] if base else config)
    return moved(model.double())


def moved(model):
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, parameter in adapters.adapter_state_dict(model).items():
            if "tt_lora" in name:
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return model


def gradients(model, inputs, **arguments):
    model.train()
    model.zero_grad()
    logits = model(inputs, **arguments).logits
    logits.square().sum().backward()
    return logits, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def dense_delta(model, path, loop):
    """s T (out, in) at a linear, from the tensors by name alone."""
    scaling = adapters.attachments(model)[0].config.scaling
    tensors = dict(model.named_parameters())
    own = f"{path}.beside.tt_lora.tasks.all_tasks.loops.{loop}.linear.cores"
    if f"{own}.0" in tensors:
        return scaling * torch.einsum("anr,rmb->mn", tensors[f"{own}.0"][:, 0], tensors[f"{own}.1"][:, :, 0])
    shared = {name.removeprefix("shared_parameters.tt_lora-all_tasks-"): p for name, p in tensors.items()}
    matrix = next(p for name, p in shared.items() if f"-{path.rpartition('.')[2]}-" in name)
    chain = shared["0"][0, 0], shared[f"loop-{loop}-1"][:, 0, 0], matrix[:, 0, 0], shared["3"][:, :, 0, 0]
    return scaling * torch.einsum("nr,rs,su,um->mn", *chain)


def unrolled(model, inputs, loops):
    """The logits of loops that are copies of the stack with dense weights, W + s T of each loop."""
    names = {name: p for name, p in model.stack.named_parameters() if ".beside." not in name}
    paths = [path for path, module in model.stack.named_modules() if hasattr(module, "beside")]
    plain = copy.deepcopy(model.stack)
    for path in paths:
        plain.get_submodule(path).uninstall(plain, path)
    injected = model.read_in(inputs)
    state = torch.zeros_like(injected)
    for loop in loops:
        weights = dict(names)
        for path in paths:
            delta = dense_delta(model, f"stack.{path}", loop)
            weights[f"{path}.weight"] = names[f"{path}.weight"] + (delta.T if "c_proj" in path else delta)
        arguments = {"inputs_embeds": state + injected, "use_cache": False}
        state = functional_call(plain, weights, (), arguments).last_hidden_state
    return model.read_out(state)


@pytest.mark.parametrize("base", [False, True])
@pytest.mark.parametrize("block", ["gpt2", "llama"])
@pytest.mark.parametrize("config", [ONE_TENSOR, INDEPENDENT], ids=["one_tensor", "independent"])
def test_each_loop_has_the_dense_weights_of_its_slice(config, block, base):
    """Outputs, and gradients of cores and, where it trains, of the base; beyond the last delta it is used again."""
    model, inputs = adapted(config, block, base), vectors()
    for count, loops in ((LOOPS, [0, 1, 2]), (5, [0, 1, 2, 2, 2])):
        logits, found = gradients(model, inputs, num_loops=count)
        assert any(".weight" in name for name in found) == base
        model.zero_grad()
        expected = unrolled(model, inputs, loops)
        torch.testing.assert_close(logits, expected)
        expected.square().sum().backward()
        for name, gradient in found.items():
            torch.testing.assert_close(gradient, model.get_parameter(name).grad, msg=name)


@pytest.mark.parametrize("config", [ONE_TENSOR, INDEPENDENT], ids=["one_tensor", "independent"])
def test_a_new_delta_leaves_every_loop_as_it_is(config):
    inputs = vectors(torch.float32)
    plain, model = looped().eval(), looped().eval()
    adapters.attach(model, config | {"target_modules": TARGETS["gpt2"]})
    assert torch.equal(model(inputs, num_loops=5).by_loop, plain(inputs, num_loops=5).by_loop)


@pytest.mark.parametrize(("reentrant", "base"), [(False, False), (False, True), (True, True)])
@pytest.mark.parametrize("window", [None, 2])
@pytest.mark.parametrize("config", [ONE_TENSOR, INDEPENDENT], ids=["one_tensor", "independent"])
def test_recomputed_blocks_are_those_of_their_loop(config, window, reentrant, base):
    options = {"loops": {"num_loops": LOOPS, "window": window}}
    plain, model, inputs = adapted(config, base=base, **options), adapted(config, base=base, **options), vectors()
    getattr(model, CHECKPOINTING, model.gradient_checkpointing_enable)({"use_reentrant": reentrant})
    forwards = []
    model.stack.h[0].attn.register_forward_hook(lambda *args: forwards.append(1))
    expected, found = gradients(plain, inputs)[1], gradients(model, inputs)[1]
    assert len(forwards) == LOOPS + (window or LOOPS)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, msg=name)


def test_a_hook_sees_the_delta_of_every_loop():
    """A delta that is hooked is computed by itself, not within the frozen weight's product; so is that of one loop."""
    model, inputs = adapted(INDEPENDENT), vectors()
    before = model.eval()(inputs).by_loop
    [delta] = [module for module in model.modules() if isinstance(module, DeltaPerLoop)]
    assert delta.fuses
    for hooked, calls in ((delta, LOOPS), (delta.loops[1], 1)):
        seen = []
        handle = hooked.register_forward_hook(lambda *args, seen=seen: seen.append(1))
        torch.testing.assert_close(model(inputs).by_loop, before)
        assert len(seen) == calls
        handle.remove()
    assert delta.fuses


@pytest.mark.parametrize("config", [ONE_TENSOR, INDEPENDENT], ids=["one_tensor", "independent"])
def test_a_compiled_model_uses_the_delta_of_every_loop(config):
    torch.compiler.reset()
    model, inputs = adapted(config).eval(), vectors()
    compiled = torch.compile(model, backend="eager", dynamic=False)
    torch.testing.assert_close(compiled(inputs, num_loops=5).by_loop, model(inputs, num_loops=5).by_loop)


def test_deltas_start_again_at_zero():
    model, inputs = adapted(INDEPENDENT), vectors()
    [delta] = [module for module in model.modules() if isinstance(module, DeltaPerLoop)]
    assert all(one.delta_weight().abs().max() > 0 for one in delta.loops)
    delta.reset_parameters()
    assert all(one.delta_weight().abs().max() == 0 for one in delta.loops)
    assert torch.equal(model.eval()(inputs).by_loop, looped().double().eval()(inputs).by_loop)


@pytest.mark.parametrize(
    ("path", "parts"),
    [
        ("loops.3.linear", ("3", "linear")),
        ("loops.12.linear.bias", ("12", "linear.bias")),
        ("loops.3", ("3", "")),
        ("linear", ("", "linear")),
        ("linear.loops.3", ("", "linear.loops.3")),
        ("loopsy.3.linear", ("", "loopsy.3.linear")),
        ("", ("", "")),
    ],
)
def test_a_path_names_its_loop(path, parts):
    assert split_loop(path) == parts


@pytest.mark.parametrize(
    ("config", "slices"), [(ONE_TENSOR, 1), (INDEPENDENT, LOOPS)], ids=["one_tensor", "independent"]
)
def test_every_loop_has_a_core_that_starts_at_zero(config, slices):
    """One for all loops if it is a core of the one tensor, else one for each."""
    model = adapters.attach(looped(), config | {"target_modules": TARGETS["gpt2"]})
    deltas = [delta for _, delta in active_deltas(model)]
    assert len(deltas) == LOOPS
    cores = {id(core): core for core in (zero_core(delta.linear) for delta in deltas)}
    assert len(cores) == slices
    assert all(core.abs().max() == 0 and core.requires_grad for core in cores.values())


def test_copies_have_loops_of_their_own():
    model, inputs = adapted(INDEPENDENT), vectors()
    other = copy.deepcopy(model)
    gc.collect()
    model.stack.loops.current = 2
    assert other.stack.loops is not model.stack.loops
    assert torch.equal(other(inputs).logits, model(inputs).logits)


def test_a_window_trains_the_deltas_of_its_loops():
    model = adapted(INDEPENDENT, loops={"num_loops": 4, "window": 2})
    found = gradients(model, vectors())[1]
    assert {name.split("loops.")[1][0] for name in found} == {"2", "3"}


@pytest.mark.parametrize("config", [ONE_TENSOR, INDEPENDENT | {"loops": 2}], ids=["one_tensor", "first_two"])
def test_a_saved_adapter_gives_the_same_logits(tmp_path, config):
    model, inputs = adapted(config, base=True).float(), vectors(torch.float32)
    adapters.save(model, tmp_path)
    loaded = adapters.load(looped(), tmp_path)
    for count in (LOOPS, 6):
        assert torch.equal(*(m.eval()(inputs, num_loops=count).by_loop for m in (loaded, model)))


@pytest.mark.parametrize("config", [ONE_TENSOR, INDEPENDENT], ids=["one_tensor", "independent"])
def test_a_weight_of_several_loops_is_not_merged(config):
    model, inputs = adapted(config), vectors()
    before = model.eval()(inputs).logits
    for merge in (adapters.merge, adapters.merge_and_unload):
        with pytest.raises(MergeError, match=r"stack\.h\.0\.attn\.c_proj.*in each loop.*loops=None"):
            merge(model)
    assert torch.equal(model(inputs).logits, before)
    with pytest.raises(ConfigurationError, match=r"loops=3.*one for each loop"):
        adapters.Deltas.of(model)


def test_one_delta_for_all_loops_is_merged():
    model, inputs = adapted(INDEPENDENT | {"loops": None}), vectors()
    before = model.eval()(inputs).by_loop
    with adapters.merged(model):
        torch.testing.assert_close(model(inputs).by_loop, before)


@pytest.mark.parametrize(
    ("config", "parameters"),
    [
        (ONE_TENSOR, RANK * (SIZE + SIZE) + (LOOPS + 2) * RANK**2),
        (INDEPENDENT, LOOPS * 2 * RANK * (SIZE + SIZE)),
        (INDEPENDENT | {"loops": 2}, 2 * 2 * RANK * (SIZE + SIZE)),
        (INDEPENDENT | {"loops": None}, 2 * RANK * (SIZE + SIZE)),
        (INDEPENDENT | {"modes": ["in", "loop", "out"]}, RANK * (SIZE + SIZE) + LOOPS * RANK**2),
        (INDEPENDENT | {"modes": ["in", "linear", "out"]}, LOOPS * (RANK * (SIZE + SIZE) + 2 * RANK**2)),
    ],
)
def test_parameter_counts(config, parameters):
    """Two linears of one layer."""
    model = adapters.attach(looped("llama"), config | {"target_modules": TARGETS["llama"]})
    assert adapters.summary(model).total.trainable == parameters


def test_two_layers_share_one_tensor():
    config = ONE_TENSOR | {"modes": ["in", "layer", "loop", "out"], "target_modules": TARGETS["gpt2"]}
    model = adapters.attach(looped(n_layer=2), config)
    assert adapters.summary(model).total.trainable == RANK * (SIZE + SIZE) + (2 + LOOPS) * RANK**2
    assert adapters.attachments(model)[0].config.loops == LOOPS


@pytest.mark.parametrize(
    ("modes", "targets", "cores"),
    [
        (["in", "loop", "matrix", "out"], ["q_proj", "k_proj", "v_proj", "o_proj"], 2 * SIZE * RANK + 7 * RANK**2),
        (["in", "loop", "layer", "matrix", "out"], ["q_proj", "v_proj"], 2 * SIZE * RANK + (LOOPS + 2 + 2) * RANK**2),
        (["in", "linear", "loop", "out"], ["q_proj", "v_proj"], 2 * SIZE * RANK + (4 + LOOPS) * RANK**2),
        (["in", "loop", "matrix", "out"], ["gate_proj", "up_proj"], 5 * SIZE * RANK + (LOOPS + 2) * RANK**2),
        (["out_in", "loop", "matrix", "out_in"], ["q_proj", "o_proj"], 2 * SIZE * RANK + (LOOPS + 2) * RANK**2),
    ],
    ids=str,
)
def test_loops_combine_with_other_sites_where_sizes_agree(modes, targets, cores):
    """Two layers; at zero nothing changes, and with other slices each loop is another one."""
    inputs = vectors(torch.float32)
    config = {"kind": "tt_lora", "modes": modes, "rank": RANK, "target_modules": targets}
    plain, model = looped("llama", n_layer=2).eval(), looped("llama", n_layer=2).eval()
    adapters.attach(model, config)
    assert torch.equal(model(inputs, num_loops=5).by_loop, plain(inputs, num_loops=5).by_loop)
    assert adapters.summary(model).total.trainable == cores
    moved(model)
    paths = [path for path, module in model.named_modules() if hasattr(module, "beside")]
    assert len(paths) == 2 * len(targets)
    every = set()
    for path in paths:
        delta = model.get_submodule(path).beside["tt_lora"].active
        every |= {tuple(one.delta_weight().flatten().tolist()) for one in delta.loops}
    assert len(every) == LOOPS * len(paths) // (1 if {"layer", "linear"} & set(modes) else 2)


OF_ALL_SIZES = ["attn.c_attn"], ["attn.c_proj"], ["mlp.c_fc"], ["mlp.c_proj"]


@pytest.mark.parametrize("modes", [["in", "loop", "matrix", "out"], ["in", "matrix", "out"], ["out_in", "loop"]])
def test_linears_of_other_sizes_have_adapters_of_their_own(modes):
    """What the refusal of one tensor advises."""
    config, inputs = {"kind": "tt_lora", "modes": modes, "rank": RANK}, vectors(torch.float32)
    plain, model = looped().eval(), looped().eval()
    advice = f"one adapter for each size, with target_modules {' and '.join(map(str, OF_ALL_SIZES))}"
    with pytest.raises(ConfigurationError, match=r"'modes' .*one shape") as caught:
        adapters.attach(model, config | {"target_modules": "all-linear"})
    assert advice in str(caught.value)
    adapters.attach(model, [config | {"target_modules": names} for names in OF_ALL_SIZES])
    assert torch.equal(model(inputs, num_loops=5).by_loop, plain(inputs, num_loops=5).by_loop)
    assert len([path for path, module in model.named_modules() if hasattr(module, "beside")]) == len(OF_ALL_SIZES)


def test_tasks_have_slices_beside_loops():
    model, inputs = looped(), vectors(torch.float32)
    config = ONE_TENSOR | {"modes": ["in", "loop", "task", "out"], "target_modules": TARGETS["gpt2"]}
    for task in ("a", "b"):
        adapters.attach(model, config, task=task)
    count = RANK * (SIZE + SIZE) + (LOOPS + 2) * RANK**2
    assert adapters.summary(model).total.trainable == count
    moved(model)
    adapters.set_active_task(model, "a")
    of_a = model.eval()(inputs).logits
    adapters.set_active_task(model, "b")
    assert not torch.allclose(model(inputs).logits, of_a)


@pytest.mark.parametrize(
    ("fields", "parts"),
    [
        ({"loops": 0}, ("'loops'", "positive number", "0")),
        ({"loops": 4}, ("'loops'", "at most the loops of the model", "4 for a model with 3")),
        ({"loops": "some"}, ("'loops'", "some")),
        ({"loops": "all", "init": "principal"}, ("'loops'", "start at zero", "principal")),
        ({"kind": "tt_single", "modes": ["in", "loop", "out"]}, ("'modes'", "kind tt_lora", "loop")),
    ],
    ids=str,
)
def test_wrong_loops_are_refused(fields, parts):
    config = {"kind": "tt_lora", **({"target_modules": TARGETS["gpt2"]} if "kind" not in fields else {}), **fields}
    model = looped()
    names = [*model.state_dict()]
    with pytest.raises(ConfigurationError) as caught:
        adapters.attach(model, config)
    assert all(part in str(caught.value) for part in parts), str(caught.value)
    assert [*model.state_dict()] == names


def test_a_model_without_loops_has_none():
    with pytest.raises(ConfigurationError, match=r"'loops'.*run in every loop.*h\.0\.attn\.c_proj"):
        adapters.attach(looped().stack.__class__(looped().stack.config), INDEPENDENT | {"target_modules": ["c_proj"]})
