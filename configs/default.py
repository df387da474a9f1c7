"""Every field of a configuration, once, with the values of the paper's model.

Kaleido at 256x256 with T5-XL (appendix B.1): 452,458,822 parameters of the
denoiser. Other files call `get_config` and assign. Values are primary: whatever
can be computed from others is computed in code, or an override on the command
line would not reach it.
"""

from ml_collections import ConfigDict


def t5_xl() -> dict:
  """T5 v1.1 and Flan-T5, size XL."""
  return dict(
    vocab_size=32128,  # larger if latents add tokens of their own
    width=2048,  # of the residual stream; encoder and decoder agree
    num_heads=32,
    head_dim=64,
    mlp_dim=5120,
    num_encoder_layers=24,
    num_decoder_layers=24,
    mlp='gated-gelu',  # 'relu' in v1.0
    tied_head=False,  # v1.0: the head is the embedding, scaled
    dropout=0.0,
    num_buckets=32,  # of relative positions
    max_distance=128,  # positions farther apart share a bucket
    remat='none',  # 'dots' or 'full': recompute layers, to save memory
    dtype='bfloat16',  # compute type; parameters are float32
  )


def unet() -> dict:
  """The inner U-Net: 64x64."""
  return dict(
    kind='unet',
    channels=(256, 512, 768),  # per resolution, each half the last
    num_resnets=(2, 2, 2),
    num_attention=(0, 1, 5),  # attention layers after each ResNet
    embedding_dim=1024,  # of time, pooled condition and micro-conditions
    conditional=True,
    condition_dim=1024,  # project the condition to this width; 0: do not
    num_condition_blocks=2,
    masked_condition=True,  # False reads padding too, as released MDM does
    micro_conditions=(('scale', 64.0),),
    middle_blocks=True,
    attention_ffn=True,
    dropout=0.0,
    groups=32,  # of the norms; must divide the channels
    heads=8,
    out_channels=3,
    remat='none',  # 'dots' or 'full': recompute blocks, to save memory
    dtype='bfloat16',
  )


def nested_unet() -> dict:
  """256x256 around 64x64."""
  return unet() | dict(
    kind='nested_unet',
    inner_unet=unet(),
    channels=(64, 128, 256),
    num_resnets=(2, 2, 1),
    num_attention=(0, 0, 0),
    condition_dim=0,  # the inner network projects for all
    num_condition_blocks=0,
    micro_conditions=(('scale', 256.0),),
    middle_blocks=False,
    attention_ffn=False,
    normalise_input=False,
  )


def get_config() -> ConfigDict:
  made = ConfigDict(
    dict(
      seed=0,
      image_shapes=((256, 256, 3), (64, 64, 3)),  # high to low
      latents=('text',),  # kinds, in order; () is Matryoshka, the baseline
      eta=1.0,  # weight of the next-token loss
      data=dict(
        source='tfds:imagenet2012',  # 'toy', 'shapes', 'emoji', 'webdataset'
        path='data',  # the folder of its files; toy and shapes have none
        split='train',
        batch_size=512,  # over all devices
        preprocess='mdm',  # or 'standard': how pictures are scaled and cropped
        flip=False,  # mirrors words, boxes, blobs and colours too, not vokens
        # T5's spiece.model, which lies beside its weights. '' is the small
        # vocabulary in this package.
        vocabulary='flan-t5-xl/spiece.model',
        vocabulary_rows=32128,  # before latents add theirs; 0: all pieces
        caption_length=128,  # in tokens; what is longer is cut, as latents are
        lengths=dict(
          text=128, bbox=192, blob=192, voken=32, color=16, layout=64
        ),
        box_lines=0,  # boxes and blobs lie on so many lines; 0: thousandths
        voken_codes=8192,  # SEED's codebook
        voken_count=32,
        vokens_from_pixels=False,  # by this package's tokenizer, not a store
        store='',  # folder of latents that the source does not know itself
        cached_memory=False,  # read the encoder's states from the store
        max_bad_share=0.01,  # of unreadable records, before the run stops
        num_workers=8,  # processes that read and prepare; 0: threads do
        num_threads=4,  # per process
      ),
      extract=dict(  # what --mode=extract puts into config.data.store
        file='',  # latents of other tools, as JSON lines
        t5='',  # a folder of T5 whose states of captions to keep
        batch_size=64,  # of the encoder
        shard_size=1024,  # examples; what is lost when it is killed
        part='0/1',  # which of how many that share the work
        max_bad_share=1.0,  # stop above this share of unusable examples
      ),
      diffusion=dict(
        # The paper says cosine; Matryoshka's code for it squares the cosine.
        schedule='squared_cosine',  # or 'cosine', 'linear'
        num_times=1000,
        shift_power=1,  # SNR / scale^power; 1 is the paper's "cosine-shift4"
        prediction='v',  # what the network predicts: 'v', 'eps' or 'x0'
        target='eps',  # what it is judged on
        # Of the examples, so many more have times from `start` on, where what
        # goes where is decided.
        early=dict(share=0.0, start=600),
        drop_condition=0.1,  # how often caption and latents are dropped, both
      ),
      optimizer=dict(  # Adam, as in appendix B.2
        learning_rate=1e-4,
        warmup_steps=10_000,
        cooldown_steps=0,  # over which the rate falls to 0 at the end
        b1=0.9,
        b2=0.99,
        eps=1e-8,
        clip=2.0,  # of the gradient's norm
        # Of the rate, for some parameters: (pattern of paths, share), ...
        shares=(),
        ema_decay=0.9999,  # at most: less after few steps
        accumulate=1,  # parts that a batch is computed in, to save memory
      ),
      # Where parameters of a new run come from. A run comes before the others.
      init=dict(
        t5='',  # folder, of Hugging Face or T5X: encoder and decoder
        mdm='',  # Matryoshka's vis_model_*.pth: the denoiser, or its inner one
        run='',  # of ours, or an export; at equal or lower resolutions
        anew=(),  # parameters that are not: patterns of their paths
      ),
      mesh=dict(  # devices: data x fsdp x tensor
        data=-1,  # -1: all that the others leave
        fsdp=1,  # splits parameters and moments; -1: all that tensor leaves
        tensor=1,  # matrices are split over it
        slices=1,  # of a TPU cluster, joined along data
      ),
      compile=dict(  # what --mode=compile compiles
        step='train',  # or 'imagine', 'render': of batch_size examples
        topology='',  # TPUs that need not be here, 'v5p:4x4x4'; '': this host
        memory=0.0,  # GB that each device has; 0.0: as the device says
        # How hard XLA tries; in training 0.0. With -1.0 it plans memory within
        # 1 % of that, for TPUs in a quarter of the time.
        effort=-1.0,
      ),
      sample=dict(
        guidance=4.0,  # 1: none
        methods=(),  # what else, of those below; see steering.py
        apart=dict(caption=2.0),  # a weight of its own; `guidance` is of z
        interval=dict(low=0.2, high=5.0),  # sigma / alpha
        dynamic=dict(tau1=0.6, tau2=0.9),
        rescale=dict(amount=0.7),
        apg=dict(parallel=0.0, radius=10.0, momentum=-0.5),
        # Its workdir, an export, or one of its checkpoints: runs/early@2000.
        autoguidance=dict(weaker=''),
        cads=dict(tau1=0.6, tau2=0.9, scale=0.25, psi=1.0, apply_to='both'),
        particles=dict(weight=30.0),
        steps=250,
        solver='ddpm',  # or 'ddim', 'dpm++', 'sde-dpm++'
        spacing='reference',  # of the steps: or 'uniform', 'trailing'
        threshold='clip',  # of estimated images: or 'none', 'dynamic'
        quantile=0.995,  # of 'dynamic'
        ceiling=1.5,  # of 'dynamic'
        temperature=1.0,  # of the latents' tokens; 0: always the likeliest
        top_k=0,  # draw among so many of the likeliest; 0: all
        top_p=1.0,  # draw among the likeliest up to this mass
      ),
      evaluate=dict(  # what --mode=evaluate draws, and how it looks at it
        guidance=(1.0, 2.0, 4.0, 7.0),
        # Beside each weight: 'cads', 'apg+rescale', 'temperature=0.7'.
        ways=('',),
        split='test',  # of the data; its captions, and its pictures
        path='',  # other data of the same kind; '': that of the run
        num_captions=128,
        per_caption=8,
        real=2_048,  # pictures that are compared with; at most
        matched=False,  # with those of the drawn captions alone
        ceiling='train',  # a split that is judged as if drawn; '': none
        reference='',  # or an .npz as ADM's, of pictures and statistics
        extractor='efficientnet_lite0',  # or 'inception_v3'
        weights='',  # its file, where no package has it
        neighbours=3,  # of precision and recall
        resamples=200,  # of captions, for intervals
        batch_size=32,  # of a device
        seed=0,
      ),
      train=dict(
        num_steps=400_000,
        log_every=100,
        save_every=1_000,
        keep=2,  # checkpoints; 0: all
        # What the averaged parameters do now and then: at the end, and every so
        # many steps (0: only at the end).
        held_out='validation',  # a split to measure losses on; '': none
        held_out_store='',  # folder of its latents, where data.store is used
        measure_every=5_000,
        measure_batches=4,  # the same ones every time
        sample_every=5_000,  # a sheet of samples; and at 1/16, 1/8, 1/4, 1/2
        sample_count=16,  # pictures on it; 0: none
        wandb='',  # the project, if runs are shown there too
        profile_from=0,  # the step before which a trace begins; 0: none
        profile_steps=5,
        deterministic=False,  # GPUs too add in one order, slower
        max_skipped=10,  # steps in a row that are not finite, before it stops
      ),
      model=dict(
        encoder=t5_xl(),
        # frozen_layers: the first decoder layers stay fixed. lora_rank: train
        # low-rank updates instead of kernels. Both save memory.
        decoder=t5_xl() | dict(frozen_layers=0, lora_rank=0),
        denoiser=nested_unet(),
        freeze_encoder=True,  # False if it starts from nothing
        train_embedder=True,  # matters only with the two fields above
        empty_caption=(1,),  # token ids of the null condition
      ),
    )
  )
  # A mistyped name in a file is an error, as it is on the command line.
  return made.lock()


def chosen(variant: str, known: tuple[str, ...]) -> set[str]:
  """The variants of '64,mdm'; refuses those that a file does not have."""
  names = set(filter(None, variant.split(',')))
  for name in sorted(names - set(known)):
    raise ValueError(
      f'variant {name!r} is not one of {", ".join(known)}; several are joined '
      'by commas.'
    )
  return names


def one_of(variants: set[str], *names: str) -> None:
  """Refuses variants that exclude each other."""
  if variants >= {*names}:
    raise ValueError(f'{" and ".join(names)} are two runs: choose one.')
