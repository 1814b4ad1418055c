"""Which attributes survive: those that geometry, pixels, contrast, masks and references need, and no others.

The standard's own table (PS3.15 Table E.1-1) lists what to remove; whatever is not on it stays. Here it is
the other way round: an attribute that is not named below is removed, also a private one, or one that a later
edition adds. What is named may still be emptied, shifted, replaced or cleaned, by its kind of value
(`values.py`) or by name.
"""

_GENERAL = """
    SOPClassUID SOPInstanceUID StudyInstanceUID SeriesInstanceUID FrameOfReferenceUID Modality ImageType
    SeriesNumber AcquisitionNumber InstanceNumber ImagesInAcquisition StudyDate SeriesDate
    AcquisitionDate ContentDate InstanceCreationDate StudyTime SeriesTime AcquisitionTime ContentTime
    InstanceCreationTime AcquisitionDateTime PatientPosition Laterality ImageLaterality BodyPartExamined
    QualityControlImage BurnedInAnnotation RecognizableVisualFeatures LossyImageCompression
    LossyImageCompressionRatio LossyImageCompressionMethod PresentationIntentType PresentationLUTShape
    VolumetricProperties VolumeBasedCalculationTechnique ComplexImageComponent AcquisitionContrast
    PixelPresentation ContentQualification TemporalPositionIdentifier NumberOfTemporalPositions
    TemporalResolution
"""

_PIXELS = """
    SamplesPerPixel PhotometricInterpretation PlanarConfiguration NumberOfFrames Rows Columns
    PixelAspectRatio BitsAllocated BitsStored HighBit PixelRepresentation SmallestImagePixelValue
    LargestImagePixelValue PixelPaddingValue PixelPaddingRangeLimit RescaleIntercept
    RescaleSlope WindowCenter WindowWidth VOILUTFunction
"""

_GEOMETRY = """
    ImagePositionPatient ImageOrientationPatient PixelSpacing SliceThickness SliceLocation
    SpacingBetweenSlices ImagerPixelSpacing ReconstructionDiameter GantryDetectorTilt TableHeight
"""

_CT = """
    KVP DataCollectionDiameter DistanceSourceToDetector DistanceSourceToPatient RotationDirection
    ExposureTime XRayTubeCurrent Exposure ExposureInuAs GeneratorPower FocalSpots RevolutionTime
    SingleCollimationWidth TotalCollimationWidth TableSpeed TableFeedPerRotation SpiralPitchFactor
    ExposureModulationType CTDIvol ScanOptions AcquisitionType FilterMaterial MultienergyCTAcquisition
    CTAcquisitionTypeSequence CTAcquisitionDetailsSequence CTTableDynamicsSequence CTPositionSequence
    CTGeometrySequence CTReconstructionSequence CTExposureSequence CTXRayDetailsSequence
    CTImageFrameTypeSequence CTAdditionalXRaySourceSequence TubeAngle ConstantVolumeFlag FluoroscopyFlag
    ReconstructionFieldOfView ReconstructionPixelSpacing ReconstructionAngle ReconstructionAlgorithm
    ReconstructionTargetCenterPatient DataCollectionCenterPatient DistanceSourceToDataCollectionCenter
    ExposureTimeInms XRayTubeCurrentInmA ExposureInmAs EstimatedDoseSaving TablePosition
"""

_MR = """
    ScanningSequence SequenceVariant MRAcquisitionType AngioFlag RepetitionTime EchoTime InversionTime
    NumberOfAverages ImagingFrequency EchoNumbers MagneticFieldStrength NumberOfPhaseEncodingSteps
    EchoTrainLength PercentSampling PercentPhaseFieldOfView PixelBandwidth TriggerTime AcquisitionMatrix
    InPlanePhaseEncodingDirection FlipAngle VariableFlipAngleFlag SAR dBdt DiffusionBValue
    DiffusionGradientOrientation DiffusionDirectionality MRImageFrameTypeSequence MREchoSequence
    MRTimingAndRelatedParametersSequence MRDiffusionSequence DiffusionGradientDirectionSequence
    MRAveragesSequence MRModifierSequence MRFOVGeometrySequence MRImagingModifierSequence
    MRMetaboliteMapSequence MRReceiveCoilSequence MRTransmitCoilSequence EffectiveEchoTime
    GradientEchoTrainLength RFEchoTrainLength EchoPulseSequence MultiPlanarExcitation
    PhaseContrast TimeOfFlightContrast SteadyStatePulseSequence EchoPlanarPulseSequence
    SaturationRecovery SpectrallySelectedSuppression OversamplingPhase GeometryOfKSpaceTraversal
    SegmentedKSpaceTraversal RectilinearPhaseEncodeReordering MultipleSpinEcho KSpaceFiltering
    ResonantNucleus ApplicableSafetyStandardAgency MRAcquisitionFrequencyEncodingSteps
    MRAcquisitionPhaseEncodingStepsInPlane MRAcquisitionPhaseEncodingStepsOutOfPlane InversionRecovery
    FlowCompensation FlowCompensationDirection Spoiling T2Preparation SpectrallySelectedExcitation
    SpatialPresaturation PartialFourier PartialFourierDirection ParallelAcquisition
    ParallelAcquisitionTechnique ParallelReductionFactorInPlane ParallelReductionFactorOutOfPlane
    ReceiveCoilType QuadratureReceiveCoil TransmitCoilType MagnetizationTransfer BloodSignalNulling
    Tagging TransmitterFrequency ChemicalShiftReference WaterReferencedPhaseCorrection
    NumberOfKSpaceTrajectories CoverageOfKSpace
"""

_PET = """
    Units CountsSource SeriesType ReprojectionMethod CorrectedImage DecayCorrection FrameReferenceTime
    ActualFrameDuration DecayFactor DoseCalibrationFactor ScatterFractionFactor DeadTimeFactor
    ImageIndex NumberOfSlices NumberOfTimeSlices RandomsCorrectionMethod CollimatorType
    SliceSensitivityFactor SUVType EnergyWindowRangeSequence EnergyWindowLowerLimit
    EnergyWindowUpperLimit RadiopharmaceuticalInformationSequence RadiopharmaceuticalStartTime
    RadiopharmaceuticalStartDateTime RadionuclideTotalDose RadionuclideHalfLife
    RadionuclidePositronFraction PETFrameTypeSequence
"""

_FRAMES = """
    SharedFunctionalGroupsSequence PerFrameFunctionalGroupsSequence PixelMeasuresSequence
    PlanePositionSequence PlaneOrientationSequence FrameContentSequence FrameVOILUTSequence
    PixelValueTransformationSequence FrameAnatomySequence FrameLaterality FrameType
    FrameAcquisitionNumber FrameReferenceDateTime FrameAcquisitionDateTime FrameAcquisitionDuration
    AcquisitionDuration DimensionIndexValues TemporalPositionIndex InStackPositionNumber
    RealWorldValueMappingSequence RealWorldValueFirstValueMapped RealWorldValueLastValueMapped
    RealWorldValueSlope RealWorldValueIntercept CardiacSynchronizationSequence
    NominalCardiacTriggerDelayTime TemporalPositionSequence TemporalPositionTimeOffset
    DimensionOrganizationSequence DimensionOrganizationUID DimensionOrganizationType
    DimensionIndexSequence DimensionIndexPointer FunctionalGroupPointer ConcatenationUID
    SOPInstanceUIDOfConcatenationSource InConcatenationNumber InConcatenationTotalNumber
    ConcatenationFrameOffsetNumber UnassignedSharedConvertedAttributesSequence
    UnassignedPerFrameConvertedAttributesSequence
"""

_REFERENCES = """
    DerivationImageSequence SourceImageSequence ReferencedImageSequence ReferencedSeriesSequence
    ReferencedInstanceSequence ReferencedSOPClassUID ReferencedSOPInstanceUID ReferencedFrameNumber
    SpatialLocationsPreserved ReferencedImageEvidenceSequence SourceImageEvidenceSequence
    ReferencedSOPSequence ConversionSourceAttributesSequence
    StudiesContainingOtherReferencedInstancesSequence
"""

_SEGMENTS = """
    SegmentationType SegmentationFractionalType MaximumFractionalValue SegmentsOverlap SegmentSequence
    SegmentNumber SegmentAlgorithmType SegmentationAlgorithmIdentificationSequence
    RecommendedDisplayCIELabValue RecommendedDisplayGrayscaleValue SegmentIdentificationSequence
    ReferencedSegmentNumber
"""

_STRUCTURES = """
    StructureSetDate StructureSetTime ReferencedFrameOfReferenceSequence RTReferencedStudySequence
    RTReferencedSeriesSequence ContourImageSequence StructureSetROISequence ROINumber
    ReferencedFrameOfReferenceUID ROIGenerationAlgorithm ROIVolume ROIContourSequence ROIDisplayColor
    ReferencedROINumber ContourSequence ContourNumber ContourGeometricType NumberOfContourPoints
    ContourData ContourSlabThickness ContourOffsetVector AttachedContours RTROIObservationsSequence
    ObservationNumber RTROIInterpretedType ApprovalStatus
"""

_CODED = """
    AnatomicRegionSequence PrimaryAnatomicStructureSequence SegmentedPropertyCategoryCodeSequence
    SegmentedPropertyTypeCodeSequence SegmentedPropertyTypeModifierCodeSequence
    AlgorithmFamilyCodeSequence DerivationCodeSequence PurposeOfReferenceCodeSequence
    MeasurementUnitsCodeSequence RadionuclideCodeSequence RadiopharmaceuticalCodeSequence
    PatientOrientationCodeSequence PatientOrientationModifierCodeSequence
    PatientGantryRelationshipCodeSequence RTROIIdentificationCodeSequence ViewCodeSequence
"""

CODED = frozenset(_CODED.split())
"""Sequences of coded terms; what a term says is taken from the standard's dictionaries, not from the file."""

KEPT = CODED.union(
    *(
        names.split()
        for names in (
            _GENERAL,
            _PIXELS,
            _GEOMETRY,
            _CT,
            _MR,
            _PET,
            _FRAMES,
            _REFERENCES,
            _SEGMENTS,
            _STRUCTURES,
        )
    )
)
"""Attributes whose value survives as far as its kind of value allows; at any depth."""

_EMPTIED = """
    PatientBirthDate PatientSex AccessionNumber StudyID ReferringPhysicianName OperatorsName
    PositionReferenceIndicator ROIInterpreter ContentCreatorName ContentDescription
    AcquisitionContextSequence FilterType ReceiveCoilName ReceiveCoilManufacturerName TransmitCoilName
    TransmitCoilManufacturerName
"""

EMPTIED = frozenset(_EMPTIED.split())
"""Attributes that some kind of image must have, but that may be empty (Z in the standard's table)."""

_DESCRIPTIONS = """
    StudyDescription SeriesDescription ProtocolName ContrastBolusAgent Manufacturer
    ManufacturerModelName ConvolutionKernel SequenceName ImagedNucleus RescaleType Radiopharmaceutical
    AttenuationCorrectionMethod ScatterCorrectionMethod ReconstructionMethod
"""

DESCRIPTIONS = frozenset(_DESCRIPTIONS.split())
"""Texts of which the known words survive (`words.py`): the standard's Clean Descriptors Option."""

NAMED = frozenset(["SegmentLabel", "ROIName"])
"""Names of structures: kept if all their words are known, else replaced by the known ones and a number."""

REMOVED = "REMOVED"
"""Stands for a text that must not be empty."""

_REPLACED = """
    DeviceSerialNumber SoftwareVersions LUTLabel LUTExplanation StructureSetLabel ContentLabel
    AlgorithmName AlgorithmVersion SegmentAlgorithmName StackID PulseSequenceName
"""

REPLACED = frozenset(_REPLACED.split())
"""Texts that must not be empty in some kind of image; they become `REMOVED` unless all words are known."""

NEEDED = frozenset(["Manufacturer", "ManufacturerModelName", "RescaleType"])
"""Descriptions that must not be empty in some kind of image; then they become `REMOVED`."""
