"""What the optimizer remembers goes along with the cores."""

import pytest
import torch

import adapters

from .settings import LORA, adamw, layers_of, steps


class TestOptimizerState:
    @pytest.mark.parametrize(
        "make",
        [
            adamw,
            lambda model: torch.optim.Adam(model.parameters(), lr=0.01, amsgrad=True),
            lambda model: torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9),
            lambda model: torch.optim.RMSprop(model.parameters(), lr=0.001, momentum=0.9, centered=True),
            lambda model: torch.optim.Adagrad(model.parameters(), lr=0.01),
            lambda model: torch.optim.NAdam(model.parameters(), lr=0.01),
        ],
        ids=["AdamW", "amsgrad", "SGD", "RMSprop", "Adagrad", "NAdam"],
    )
    def test_all_state_is_transformed_and_training_continues(self, make, tiny_t5, trained, batch):
        model = trained(adapters.attach(tiny_t5(), LORA))
        optimizer = make(model)
        steps(model, batch, optimizer)
        adapters.adapt_ranks(model, optimizer, max_rank=3, grow=1)
        for layer in layers_of(model):
            for core in layer.cores:
                tensors = [value for value in optimizer.state[core].values() if torch.is_tensor(value) and value.dim()]
                assert tensors
                assert all(value.shape == core.shape and value.dtype == core.dtype for value in tensors)
                assert all(value.isfinite().all() for value in tensors)
        steps(model, batch, optimizer)

    def test_means_of_gradients_are_those_in_the_new_gauge(self, tiny_t5, trained, batch):
        """One step with beta1 = 0: the transformed mean is the gradient at the new cores."""
        model = trained(adapters.attach(tiny_t5(), LORA)).double()
        optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.0, betas=(0.0, 0.9))
        steps(model, batch, optimizer, 1)
        adapters.orthogonalize(model, optimizer=optimizer)
        model(**batch).loss.backward()
        for layer in layers_of(model):
            for core in layer.cores:
                mean = optimizer.state[core]["exp_avg"]
                torch.testing.assert_close(mean, core.grad, rtol=1e-9, atol=1e-9 * float(core.grad.abs().max()))

    def test_new_directions_start_with_mean_zero_and_the_average_square(self, tiny_t5, trained, batch):
        model = trained(adapters.attach(tiny_t5(), {**LORA, "rank": 2}))
        optimizer = adamw(model)
        steps(model, batch, optimizer)
        core = layers_of(model)[0].cores[0]
        square = optimizer.state[core]["exp_avg_sq"].clone()
        adapters.adapt_ranks(model, optimizer, grow=1)
        state = optimizer.state[core]
        assert torch.equal(state["exp_avg_sq"][..., :2], square)
        expected = square.mean().expand(1, *core.shape[1:3], 1)
        torch.testing.assert_close(state["exp_avg_sq"][..., 2:], expected, rtol=1e-5, atol=0)
        assert square.mean() > 0
        assert not state["exp_avg"][..., 2:].any()

    def test_unknown_state_is_reported_by_name(self, tiny_t5, trained, batch, snapshot):
        model = trained(adapters.attach(tiny_t5(), LORA))
        optimizer = torch.optim.Adamax([p for p in model.parameters() if p.requires_grad])
        steps(model, batch, optimizer, 1)
        before = snapshot(model)
        with pytest.raises(adapters.ConfigurationError, match="exp_inf"):
            adapters.adapt_ranks(model, optimizer, max_rank=1)
        assert snapshot(model) == before

    def test_state_of_all_parameters_together_is_reported(self, tiny_t5, trained, batch, snapshot):
        """L-BFGS keeps all gradients in one vector, as the state of the first Parameter: here not a core."""
        model = trained(adapters.attach(tiny_t5(), [{"kind": "layer_norm"}, LORA]))
        optimizer = torch.optim.LBFGS([p for p in model.parameters() if p.requires_grad], max_iter=2)

        def closure():
            optimizer.zero_grad()
            loss = model(**batch).loss
            loss.backward()
            return loss

        optimizer.step(closure)
        assert next(iter(optimizer.state)) not in {core for layer in layers_of(model) for core in layer.cores}
        before = snapshot(model)
        with pytest.raises(adapters.ConfigurationError, match="of the size of their Parameter"):
            adapters.adapt_ranks(model, optimizer, max_rank=1)
        assert snapshot(model) == before

    def test_a_training_loop_that_keeps_its_loss_continues(self, tiny_t5, trained, batch):
        """The graph of the previous step is alive when ranks change, as in every training loop."""
        model = trained(adapters.attach(tiny_t5(), LORA))
        optimizer = adamw(model)
        schedule = adapters.RankSchedule(start=2, every=2, end=4, rel_tol=0.3)
        for step in range(1, 6):
            loss = model(**batch).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            schedule.step(model, optimizer, step)
        assert loss.isfinite()
