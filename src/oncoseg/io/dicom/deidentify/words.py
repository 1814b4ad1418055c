"""The words that may stay in a description or in a structure's name; all others are dropped.

Names of parts of the body, of lesions, of scanners and of ways to scan, and single letters and short numbers
that belong to them. A patient who is called Brain stays Brain; nobody else's name is here.
"""

import re

_WORDS = """
    abd abdo abdomen abdominal abscess achieva acquired acquisition adc adrenal advance aera air all and
    angio angiography anterior aorta aortic aquilion arm arms arterial arteries artery asl attenuation
    avanto average averaged avoidance ax axial axilla axillary back baseline bed benign bf bilateral
    biliary biograph bl bladder blade bleed bleeding blood body bold bone bones boost bowel bq bqml br
    brachial brain brainstem bravo breast breasts breath bright brightspeed brilliance bronchus by
    calcification cancer canon carcinoma cardiac carotid cauda caudate cava cavity ce center centre
    cerebellum cerebral cerebrum cervical cervix chest chiasm choline cine cisp ciss clinical cochlea
    coil colon column combined contour contours contrast cor cord core cornea coronal coronary corrected
    correction cortex couch cranial cranium csf ct cta ctv cube cyst cystic cysts definition delayed
    derived diff diffusion disc discovery discs disease dixon dose dotatate dti dual duodenum dwi
    dynamic ear early ecg echo ed edema elbow elekta emotion energy enhancing ep epi esophagus espree et
    exhale expiration external eye eyes f face fast fat fatsat fb fc fdg femoral femur ffe fibula field
    fiesta filter filtered first flair flash flow fluoride fluorodeoxyglucose foot for fov free from fs
    fse fujifilm full functional fused ga gad gadolinium gallbladder ganglia gated gd ge gemini gland
    glands glioblastoma glioma gliomas globe gold gradient gre gross gtv gtvn gtvp gtvt gy gyrus
    haemorrhage hand haste hd head healthcare healthineers heart hemisphere hemorrhage hepatic hf high
    highdicom hilum hip hippocampus hires hitachi hold hr hu humerus hz ideal igtv iliac image images
    imaging in inferior infiltration ingenia inhale inspiration intera internal intestine iodine ir irm
    iso isotropic itv iv ivc jaw jejunum joint kernel kidney kidneys knee kv label lacrimal large larynx
    late lateral lava left leg legs lens lenses lesion lesions level lightspeed limb liver lobe lobes
    localiser localizer long low lower lr lumbar lung lungs lymph magnetom malignant mandible map
    mapping maps margin marker markers marrow mask mass masses max mean medial mediastinum medical
    medium meningioma mesentery metastases metastasis metastatic middle min mip ml mm model mono motion
    mouth mp mpr mprage mr mra mri mrs mrv ms muscle muscles myocardium na nasal nasopharynx native nc
    ncct ncr neck necrosis necrotic neoplasm neoplasms nerve nerves net no nodal node nodes nodule
    nodules non normal nose nuclear number oar oars oblique od oedema oesophagus of on oncoseg one
    opposed optic optima or oral orbit orbits organ organs original other out outside ovary pair
    pancreas parallel parotid parotids part pc pd pelvic pelvis penile perfusion pericardium peritoneum
    peritumoral pet petct phantom pharynx phase phases philips pituitary plain plane planning pleura plus
    point points pons portal pos post postcontrast posterior pre precontrast primary prisma prone propeller
    prostate protocol proton prv psma pt ptv pulmonary pwi qsm quick raw recon reconstructed
    reconstruction rectal rectum recurrence recurrent reduced reference reformat reformatted region
    renal resection residual resolution rest retina revolution rib ribs right ring risk roi routine
    sacral sacrum sag sagittal salivary sarcoma saturated scan scapula scar scout se second secondary
    segment segmentation segments seminal sensation sense sequence series sharp short shot siemens
    sigmoid signa single
    sinus sinuses skeletal skin skull skyra slab slice slices small smooth soft somatom sonata space
    spgr spin spinal spine spir spiral spleen splenic spoiled ssfp stack standard star stationary std
    sternum stir stomach stress structure study submandibular subtraction superior supine suppressed
    survey susceptibility suv svc swi symphony system systems target tc te temporal test testis tfe
    thalamus the thick thigh thin thoracic thorax thx thymus thyroid ti tibia time tir tirm tissue titan
    to tof tongue tonsil toshiba total tr tra trace trachea trans transaxial transversal transverse trio
    triple true trufi tse tumor tumors tumour tumours turbo tv twist two type uih united upper uptake
    ureter urethra us uterus vagina vantage varian vein veins vena venous ventricle ventricles verio
    vertebra vertebrae vesicles vessel vessels vibe vida view vista vol volume volumes volumetric
    washout water weighted whole wholebody wi win window with without wrist wt
"""

WORDS = frozenset(_WORDS.split())

LETTERS = frozenset("rlct")
"""Single letters that are words: right, left, contrast or tesla."""

MOST_DIGITS = 2
"""Of a number that stays, as in T1, 3D, GTV-2; and no two of them in a row, as dates have."""

SEPARATORS = re.compile(r"[ \-_./+()%&,:#]*")
"""What may stand between words."""


def known_words(text: str) -> str:
    """What may stay of a text: its known words, and short numbers."""
    words = _words(text)
    return " ".join(word for word, stays in zip(words, _stay(words), strict=True) if stays)


def all_known(text: str) -> bool:
    """Whether a text consists of what may stay, with ordinary signs between."""
    words = _words(text)
    return bool(words) and all(_stay(words)) and all(map(SEPARATORS.fullmatch, re.split(r"[^\W_]+", text)))


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text)


def _stay(words: list[str]) -> list[bool]:
    """For each word, whether it may stay."""
    numbers = [False, *(word.isdigit() for word in words), False]
    return [
        _is_known(word) and not (word.isdigit() and (numbers[at] or numbers[at + 2]))
        for at, word in enumerate(words)
    ]


def _is_known(word: str) -> bool:
    letters = re.findall(r"[^\W\d]+", word.lower())
    digits = re.findall(r"\d+", word)
    if any(len(each) > MOST_DIGITS for each in digits):
        return False
    if not digits:
        return word.lower() in WORDS | LETTERS
    return all(each in WORDS or (len(each) == 1 and each.isascii()) for each in letters)
