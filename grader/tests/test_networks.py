"""The assignment's own networks and diffusion, as given code promises them."""

from __future__ import annotations

from types import SimpleNamespace as Names

import pytest
import torch
from torch import testing


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize(("channels", "z", "width", "side"), [(3, 3, 32, 32), (1, 4, 8, 28)])
def test_vae_shapes_and_ranges(solved: Names, channels: int, z: int, width: int, side: int) -> None:
    vae = solved.model.VAE(channels, z, width)
    x = torch.rand(2, channels, side, side) * 2 - 1
    x_recon, mu, logvar = vae(x)
    assert x_recon.shape == x.shape
    assert float(x_recon.detach().abs().max()) <= 1
    assert mu.shape == logvar.shape == (2, z, side // 4, side // 4)
    testing.assert_close(vae.encode(x), mu)
    testing.assert_close(vae.decode(mu), vae.decoder(mu))


def test_every_parameter_of_the_vae_gets_a_gradient(solved: Names) -> None:
    vae = solved.model.VAE(num_channels=8)
    x_recon, mu, logvar = vae(torch.randn(2, 3, 16, 16))
    (x_recon.square().mean() + solved.loss.KLDivergenceLoss()(mu, logvar)).backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in vae.parameters())


def test_discriminator_gives_logits_of_patches(solved: Names) -> None:
    logits = solved.model.Discriminator(3, 16)(torch.randn(2, 3, 32, 32))
    assert logits.shape == (2, 1, 8, 8)
    assert float(logits.detach().min()) < 0 < float(logits.detach().max())


def test_unet_starts_as_zero_and_depends_on_everything_once_it_is_not(solved: Names) -> None:
    unet = solved.model.UNet(num_channels=16)
    x, y, t = torch.randn(2, 3, 8, 8), torch.tensor([1, 7]), torch.tensor([0, 999])
    assert not unet(x, y, t).any()
    torch.nn.init.normal_(unet.conv_out[-1].weight)
    with torch.no_grad():
        base = unet(x, y, t)
        assert base.shape == x.shape
        for other in [(x + 1, y, t), (x, y + 1, t), (x, y, t // 2)]:
            assert not torch.allclose(unet(*other), base)


def test_time_embedding_is_sines_and_cosines(solved: Names) -> None:
    embedding = solved.module.TimeEmbedding(8, 16)
    embedding.net = torch.nn.Identity()
    features = embedding(torch.tensor([0, 3]))
    testing.assert_close(features[0], torch.tensor([0.0] * 4 + [1.0] * 4))
    testing.assert_close(
        features[1, [0, 4]],
        torch.tensor([3.0]).sin().repeat(2).index_copy(0, torch.tensor([1]), torch.tensor([3.0]).cos()),
    )


def test_down_and_up_sampling(solved: Names) -> None:
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    testing.assert_close(solved.module.Downsample()(x)[0, 0], torch.tensor([[2.5, 4.5], [10.5, 12.5]]))
    up = solved.module.Upsample(1)
    up.conv = torch.nn.Identity()
    testing.assert_close(solved.module.Downsample()(up(x)), x)


def test_residual_block_adds_its_embedding_and_keeps_a_matching_skip(solved: Names) -> None:
    block = solved.module.ResBlock(8, 8, emb_channels=4)
    torch.nn.init.zeros_(block.conv2[-1].weight)
    torch.nn.init.zeros_(block.conv2[-1].bias)
    x = torch.randn(2, 8, 4, 4)
    testing.assert_close(block(x, torch.randn(2, 4)), x)
    assert isinstance(block.skip, torch.nn.Identity)
    block = solved.module.ResBlock(8, 16, emb_channels=4)
    assert not torch.allclose(block(x, torch.zeros(2, 4)), block(x, torch.ones(2, 4)))
    assert sum(isinstance(m, torch.nn.GroupNorm) and m.num_groups == 8 for m in block.modules()) == 2


def test_diffusion_loss_is_the_error_of_the_predicted_noise(solved: Names) -> None:
    diffusion = solved.diffusion.GaussianDiffusion()
    x, y = torch.randn(64, 3, 4, 4), torch.zeros(64, dtype=torch.int64)
    seen = []

    def zero(x_t: torch.Tensor, labels: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        seen.append((x_t.shape, labels is y, t))
        return torch.zeros_like(x_t)

    assert float(diffusion(zero, x, y)) == pytest.approx(1, abs=0.15)
    shape, same_labels, t = seen[0]
    assert (shape, same_labels, t.dtype) == (x.shape, True, torch.int64)
    assert int(t.min()) < 200 < 800 < int(t.max())
    noise = torch.randn_like(x)
    assert float(diffusion.p_losses(lambda x_t, y, t: noise, x, y, t, noise)) == 0


def test_schedules_are_buffers_that_move_with_the_module(solved: Names) -> None:
    diffusion = solved.diffusion.GaussianDiffusion(num_timesteps=10)
    assert len(list(diffusion.buffers())) == 11
    assert all(buffer.dtype == torch.float32 and buffer.shape == (10,) for buffer in diffusion.buffers())
    assert list(diffusion.parameters()) == []
